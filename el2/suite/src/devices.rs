//! Tests which guest each PCI function is assigned to, and that a guest's device keeps working
//! while the other guest attacks all functions (`el2/hostile`, `device`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use doorbell_facts::{HostileFact, HypervisorFact};
use doorbell_harness::suite::Case;

use crate::board::{Board, LIMIT};
use crate::built;
use crate::hostile::{self, BOARD, EXIT};
use crate::output::Output;

/// Duration of the attack and of the other guest's use of its device, in milliseconds.
const MILLISECONDS: u32 = 100;
/// Minimum number of times that the guests move their memory and attack a function.
const FEWEST: u64 = 50;

/// Name of a case, whether the guests are trusted, devices, the owners of their functions by
/// address (the number of the guest, or `None` if the function is withheld), and the functions
/// whose INTx line is that of another guest's function.
type Assignment = (&'static str, bool, &'static str, [(u32, Option<usize>); 3], &'static [u32]);

const ASSIGNMENTS: [Assignment; 5] = [
    (
        "functions of one device",
        false,
        "edu,addr=1.0,multifunction=on edu,addr=1.1 edu,addr=2.0",
        [(0x08, Some(0)), (0x09, Some(0)), (0x10, Some(1))],
        &[],
    ),
    (
        "trusted functions below a conventional bridge",
        true,
        "pcie-pci-bridge,id=a,addr=1.0 edu,bus=a,addr=1.0 edu,bus=a,addr=2.0 edu,addr=2.0",
        [(0x108, Some(0)), (0x110, Some(0)), (0x10, Some(1))],
        &[0x108, 0x10],
    ),
    (
        "functions below a conventional bridge",
        false,
        "pcie-pci-bridge,id=a,addr=1.0 edu,bus=a,addr=1.0 edu,bus=a,addr=2.0 edu,addr=2.0",
        [(0x108, None), (0x110, None), (0x10, Some(0))],
        &[],
    ),
    (
        "functions below ports with ACS",
        false,
        "pcie-root-port,id=a,addr=1.0,chassis=1,multifunction=on edu,bus=a edu,addr=2.0 \
         pcie-root-port,id=b,addr=1.1,chassis=2 edu,bus=b",
        [(0x100, Some(0)), (0x200, Some(1)), (0x10, Some(0))],
        &[0x100, 0x200],
    ),
    (
        "functions below ports without ACS",
        false,
        "pcie-root-port,id=a,addr=1.0,chassis=1,multifunction=on,disable-acs=on edu,bus=a \
         pcie-root-port,id=b,addr=1.1,chassis=2,disable-acs=on edu,bus=b edu,addr=2.0",
        [(0x100, Some(0)), (0x200, Some(0)), (0x10, Some(1))],
        &[],
    ),
];
const BELOW_PORTS: [&str; 4] =
    ["pcie-root-port,id=a,chassis=1", "edu,bus=a", "pcie-root-port,id=b,chassis=2", "edu,bus=b"];

/// Lists the cases.
pub(crate) fn cases() -> Vec<Case> {
    let assignments = ASSIGNMENTS.into_iter().map(|assignment| {
        let name = format!("{} are assigned to the right guests", assignment.0);
        built::case(name, LIMIT, move || assign(assignment))
    });
    let name = "a guest's device answers beside a guest that attacks all functions";
    assignments.chain([built::case(name, LIMIT, attack)]).collect()
}

fn assign((_, trusted, devices, owners, shared): Assignment) -> Result<()> {
    let devices: Vec<_> = devices.split(' ').collect();
    let words = "delay=1";
    let guests = if trusted { hostile::trusted(words)? } else { [hostile::guest(words)?; 2] };
    let board = Board { devices: &devices, trusted, ..BOARD };
    let output = Output::of(&mut board.command(&guests)?)?;
    let owner = |fact: &_| match *fact {
        HypervisorFact::Assigned { guest, function, .. } => Some((function, Some(guest))),
        HypervisorFact::Withheld { function, .. } => Some((function, None)),
        _ => None,
    };
    let found: BTreeMap<_, _> = output.hypervisor().filter_map(owner).collect();
    let refused: BTreeSet<_> = output
        .hypervisor()
        .filter_map(|fact| match fact {
            HypervisorFact::NoIntx { function, reason } => {
                reason.contains("share").then_some(*function)
            }
            _ => None,
        })
        .collect();
    let expected = owners.into();
    ensure!(found == expected, "the owners are {found:x?}, not {expected:x?}");
    let shared = shared.iter().copied().collect();
    ensure!(refused == shared, "{refused:x?} must not assert INTx, not {shared:x?}");
    Ok(())
}

/// Runs a guest that attacks all functions, and one that uses its device.
fn attack() -> Result<()> {
    let board = Board { devices: &BELOW_PORTS, stats: true, ..BOARD };
    let attack = format!("attack=devices milliseconds={MILLISECONDS}");
    let using = format!("device={MILLISECONDS}");
    let output = hostile::run(board, &[hostile::guest(&attack)?, hostile::guest(&using)?])?;
    let (attacked, _) = hostile::attacked(&output, 0).context("the attack did not end")?;
    let Some(&HostileFact::Used { turns, wrong, exceptions }) = output.hostile(1) else {
        bail!("the other guest did not report its device");
    };
    let (exit, _) = hostile::longest(&output).unwrap_or_default();
    eprintln!("{attacked} functions attacked, {turns} uses of a device, {exit} in an exit");
    ensure!(attacked.min(turns) >= FEWEST, "only {attacked} attacks and {turns} uses");
    ensure!(wrong == 0, "the device did not answer {wrong} of {turns} times");
    ensure!((1..=EXIT).contains(&exit), "an exit took {exit} instructions");
    ensure!(exceptions == 0, "the device caused {exceptions} exceptions");
    Ok(())
}
