//! Tests for register leaks between guests: one guest writes every system register (`el2/hostile`,
//! `stain`), and another guest on the same CPU keeps reading them (`scan`). Only the values of
//! clocks may change.

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, HostileFact};
use doorbell_harness::process;
use doorbell_harness::suite::Case;

use crate::board::{Board, COUNTED, LIMIT};
use crate::machine::{GICV3, MAX, Machine};
use crate::report::fact_of;
use crate::{built, hostile};

/// Number of times that each register is read. A leak of one bit is missed with a probability of
/// 2^-15.
const TIMES: usize = 16;
/// Duration of the writing guest's attack, in milliseconds.
const MILLISECONDS: u32 = 200;
/// Minimum number of readable registers. A Neoverse-N1 has 2,200 at EL1.
const FEWEST: usize = 2000;
/// Registers that change without being written: `CNTPCT_EL0`, `CNTVCT_EL0`, `CNTPCTSS_EL0`,
/// `CNTVCTSS_EL0`, `CNTP_TVAL_EL0`, `CNTV_TVAL_EL0`, `RNDR`, `RNDRRS`, and `NZCV`, which holds the
/// reader's own flags.
const CLOCKS: &[&str] = &[
    COUNTER,
    "S3_3_C14_C0_1",
    "S3_3_C14_C0_5",
    "S3_3_C14_C0_6",
    "S3_3_C14_C2_0",
    "S3_3_C14_C3_0",
    "S3_3_C2_C4_0",
    "S3_3_C2_C4_1",
    "S3_3_C4_C2_0",
];
/// `CNTVCT_EL0`, which always changes: a scan must detect the change.
const COUNTER: &str = "S3_3_C14_C0_2";

/// Lists the cases, one for each model of CPU.
pub(crate) fn cases() -> Vec<Case> {
    let case = |machine| {
        let name = format!("no register shows another guest's value on {machine}");
        built::case(name, LIMIT, move || judge(machine))
    };
    [GICV3, MAX].map(case).into()
}

fn judge(machine: Machine) -> Result<()> {
    let board = Board { machine, ..hostile::board()? };
    let (scan, stain) =
        (format!("scan={TIMES}"), format!("attack=stain milliseconds={MILLISECONDS}"));
    let mut qemu = board.command(&[hostile::guest(&scan)?, hostile::guest(&stain)?])?;
    let mut scan = Scan::default();
    process::watch(qemu.args(COUNTED), LIMIT, |line| scan.line(line))?;
    scan.judge()
}

/// The results of the guest that reads.
#[derive(Debug, Default)]
struct Scan {
    readable: usize,
    changed: Vec<String>,
    kept: Option<usize>,
    /// `true` if the other guest wrote registers during the whole scan.
    is_stained: bool,
}

impl Scan {
    fn line(&mut self, line: &str) {
        match fact_of(line) {
            Some((1, Fact::Hostile(HostileFact::Attacked { turns, .. }))) => {
                self.is_stained = self.kept.is_some() && turns > 1;
            }
            Some((0, Fact::Hostile(HostileFact::Readable { registers }))) => {
                self.readable = registers;
            }
            Some((0, Fact::Hostile(HostileFact::Unchanged { registers }))) => {
                self.kept = Some(registers);
            }
            Some((0, Fact::Hostile(HostileFact::Changed { register, .. }))) => {
                self.changed.push(register.into());
            }
            _ => {}
        }
    }

    fn judge(self) -> Result<()> {
        let Self { readable, changed, kept, is_stained } = self;
        ensure!(is_stained, "the other guest did not write registers during the whole scan");
        ensure!(readable >= FEWEST, "only {readable} registers are readable");
        let kept = kept.context("the guest that reads did not finish")?;
        ensure!(kept + changed.len() == readable, "{kept} of {readable} kept: {changed:?}");
        ensure!(changed.iter().any(|register| register == COUNTER), "the counter did not change");
        let is_clock = |register: &&String| CLOCKS.contains(&register.as_str());
        let leaks: Vec<_> = changed.iter().filter(|register| !is_clock(register)).collect();
        ensure!(leaks.is_empty(), "{leaks:?}");
        eprintln!("{readable} registers read {TIMES} times: {} clocks", changed.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::needs_each;

    const LINES: [&str; 4] = [
        r#"[0] {"hostile":{"readable":{"registers":2001}}}"#,
        r#"[0] {"hostile":{"changed":{"register":"S3_3_C14_C0_2","first":1,"now":2}}}"#,
        r#"[0] {"hostile":{"unchanged":{"registers":2000}}}"#,
        r#"[1] {"hostile":{"attacked":{"attack":"stain","turns":40,"exceptions":9}}}"#,
    ];

    fn judged(lines: &[&str]) -> Result<()> {
        let mut scan = Scan::default();
        for line in lines {
            scan.line(line);
        }
        scan.judge()
    }

    #[test]
    fn a_register_that_changes_is_reported_as_a_leak() {
        let leak =
            r#"[0] {"hostile":{"changed":{"register":"S3_0_C12_C1_1","first":0,"now":null}}}"#;
        let one_less = LINES[2].replace("2000", "1999");
        let error = judged(&[LINES[0], LINES[1], leak, &one_less, LINES[3]]).unwrap_err();
        assert!(error.to_string().contains("S3_0_C12_C1_1"), "{error}");
    }

    #[test]
    fn an_incomplete_scan_or_an_idle_other_guest_fails() {
        needs_each(&LINES, judged);
        let idle = LINES[3].replace("40", "1");
        assert!(judged(&[LINES[0], LINES[1], LINES[2], &idle]).is_err());
    }
}
