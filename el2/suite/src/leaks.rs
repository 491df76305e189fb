//! Tests for register leaks between guests: one guest writes every system register (`el2/hostile`,
//! `stain`), and another guest on the same CPU keeps reading them (`scan`). Only the values of
//! clocks may change.

use anyhow::{Result, bail, ensure};
use doorbell_facts::{Fact, HostileFact};
use doorbell_harness::suite::Case;

use crate::board::{Board, GICV3, LIMIT, MAX};
use crate::built;
use crate::hostile::{self, BOARD, attacked, guest};
use crate::output::Output;

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
        built::case(name, LIMIT, move || {
            let scan = format!("scan={TIMES}");
            let stain = format!("attack=stain milliseconds={MILLISECONDS}");
            let board = Board { machine, ..BOARD };
            judge(&hostile::run(board, &[guest(&scan)?, guest(&stain)?])?)
        })
    };
    [GICV3, MAX].map(case).into()
}

fn judge(output: &Output) -> Result<()> {
    let Some(HostileFact::Unchanged { registers: kept }) = output.hostile(0) else {
        bail!("the guest that reads did not finish");
    };
    // The other guest's report is the last if it wrote registers during the whole scan.
    let last = output.facts.iter().rev().find(|(_, fact)| matches!(fact, Fact::Hostile(_)));
    let last = last.map(|(guest, _)| *guest);
    let turns = attacked(output, 1).map_or(0, |(turns, _)| turns);
    ensure!(
        last == Some(1) && turns > 1,
        "the other guest did not write registers during the whole scan"
    );
    let (mut readable, mut changed) = (0, Vec::new());
    for (_, fact) in output.facts.iter().filter(|(guest, _)| *guest == 0) {
        match fact {
            Fact::Hostile(HostileFact::Readable { registers }) => readable = *registers,
            Fact::Hostile(HostileFact::Changed { register, .. }) => changed.push(&**register),
            _ => {}
        }
    }
    ensure!(readable >= FEWEST, "only {readable} registers are readable");
    ensure!(kept + changed.len() == readable, "{kept} of {readable} kept: {changed:?}");
    ensure!(changed.contains(&COUNTER), "the counter did not change");
    let leaks: Vec<_> = changed.iter().filter(|register| !CLOCKS.contains(register)).collect();
    ensure!(leaks.is_empty(), "{leaks:?}");
    eprintln!("{readable} registers read {TIMES} times: {} clocks", changed.len());
    Ok(())
}
