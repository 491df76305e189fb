//! A guest that writes every system register (`el2/hostile`, `stain`), next to one that
//! repeatedly reads them all (`scan`) on the same CPU. Only clocks may change.

use anyhow::{Context, Result, ensure};

use super::hostile::Hostile;
use super::machine::{GICV3, MAX, Machine};
use super::microbench::COUNTED;
use super::{Board, LIMIT};
use crate::parallel::Trial;
use crate::process;
use doorbell_harness::image::Image;

/// Number of readings of each register. A leak of one bit is missed with a probability of 2^-15.
const TIMES: usize = 16;
/// Time limit of the guest that reads, in milliseconds.
const MILLISECONDS: u32 = 200;
/// Minimum number of readable registers. A Neoverse-N1 has 2,200 for EL1.
const FEWEST: usize = 2000;
/// Registers that change by themselves: `CNTPCT_EL0`, `CNTVCT_EL0`, `CNTPCTSS_EL0`, `CNTVCTSS_EL0`,
/// `CNTV_TVAL_EL0`, `RNDR`, `RNDRRS`, and `NZCV`, which holds the reader's own flags.
const CLOCKS: &[&str] = &[
    COUNTER,
    "S3_3_C14_C0_1",
    "S3_3_C14_C0_5",
    "S3_3_C14_C0_6",
    "S3_3_C14_C3_0",
    "S3_3_C2_C4_0",
    "S3_3_C2_C4_1",
    "S3_3_C4_C2_0",
];
/// `CNTVCT_EL0`, which a scan must see change.
const COUNTER: &str = "S3_3_C14_C0_2";

/// Lists the trials, one for each model of CPU.
pub(super) fn trials<'a>(
    hostile: &'a Hostile,
    hypervisor: &'a Image,
) -> impl Iterator<Item = Trial<'a>> {
    [GICV3, MAX].into_iter().map(move |machine| -> Trial<'a> {
        Box::new(move |tally| {
            let name = format!("no register shows another guest's value on {machine}");
            tally.case(&name, judge(hostile, hypervisor, machine));
            Ok(())
        })
    })
}

fn judge(hostile: &Hostile, hypervisor: &Image, machine: Machine) -> Result<()> {
    let board = Board { machine, ..hostile.board(hypervisor) };
    let (scan, stain) =
        (format!("scan={TIMES}"), format!("attack=stain milliseconds={MILLISECONDS}"));
    let mut qemu = board.command(&[hostile.first(&scan), hostile.second(&stain)])?;
    let mut scan = Scan::default();
    process::watch(qemu.args(COUNTED), LIMIT, |line| scan.line(line))?;
    scan.judge()
}

/// Report of the guest that reads.
#[derive(Debug, Default)]
struct Scan {
    readable: usize,
    changed: Vec<String>,
    kept: Option<usize>,
    /// Whether the other guest wrote registers all the time.
    is_stained: bool,
}

impl Scan {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(stained) = line.strip_prefix("[1] hostile - stain: ") {
            self.is_stained = self.kept.is_some() && !stained.starts_with("1 turns");
        }
        let Some(said) = line.strip_prefix("[0] scan - ") else { return };
        if said.contains(" has changed: ") {
            self.changed.push(said.into());
        } else if let Some((count, what)) = said.split_once(' ') {
            let count = count.parse().unwrap_or(0);
            match what {
                "registers are readable" => self.readable = count,
                _ => self.kept = Some(count),
            }
        }
    }

    fn judge(self) -> Result<()> {
        let Self { readable, changed, kept, is_stained } = self;
        ensure!(is_stained, "the other guest did not write registers all the time");
        ensure!(readable >= FEWEST, "only {readable} registers are readable");
        let kept = kept.context("the guest that reads has no end")?;
        ensure!(kept + changed.len() == readable, "{kept} of {readable} kept: {changed:?}");
        let is = |register: &str, line: &String| line.starts_with(&format!("{register} "));
        ensure!(changed.iter().any(|line| is(COUNTER, line)), "the counter stands still");
        let is_clock = |line: &&String| CLOCKS.iter().any(|clock| is(clock, line));
        let leaks: Vec<_> = changed.iter().filter(|line| !is_clock(line)).collect();
        ensure!(leaks.is_empty(), "{leaks:?}");
        println!("{readable} registers read {TIMES} times: {} clocks", changed.len());
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const LINES: [&str; 4] = [
        "[0] scan - 2001 registers are readable\r",
        "[0] scan - S3_3_C14_C0_2 has changed: 0x1, Some(0x2)\r",
        "[0] scan - 2000 registers keep their values\r",
        "[1] hostile - stain: 40 turns, 9 exceptions\r",
    ];

    fn judged(lines: &[&str]) -> Result<()> {
        let mut scan = Scan::default();
        for line in lines {
            scan.line(line);
        }
        scan.judge()
    }

    #[test]
    fn a_register_that_changes_is_a_leak_unless_it_is_a_clock() {
        judged(&LINES).unwrap();
        let leak = "[0] scan - S3_0_C12_C1_1 has changed: 0x0, Some(0x5a)\r";
        let one_less = "[0] scan - 1999 registers keep their values";
        let error = judged(&[LINES[0], LINES[1], leak, one_less, LINES[3]]).unwrap_err();
        assert!(error.to_string().contains("S3_0_C12_C1_1"), "{error}");
    }

    #[test]
    fn a_scan_without_its_end_or_beside_an_idle_guest_fails() {
        for missing in 0..LINES.len() {
            let mut lines = LINES.to_vec();
            lines.remove(missing);
            assert!(judged(&lines).is_err(), "without line {missing}");
        }
        let idle = "[1] hostile - stain: 1 turns, 9 exceptions";
        assert!(judged(&[LINES[0], LINES[1], LINES[2], idle]).is_err());
    }
}
