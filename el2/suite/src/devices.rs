//! Tests which guest each PCI function is assigned to, and that a guest's device keeps working
//! while the other guest attacks all functions (`el2/hostile`, `device`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, HostileFact, HypervisorFact};
use doorbell_harness::process;
use doorbell_harness::suite::Case;

use crate::board::{Board, COUNTED, LIMIT, Record};
use crate::hostile::EXIT;
use crate::report::fact_of;
use crate::{built, hostile};

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
const BELOW_PORTS: &str = "pcie-root-port,id=a,chassis=1 edu,bus=a \
                           pcie-root-port,id=b,chassis=2 edu,bus=b";

/// Lists the cases.
pub(crate) fn cases() -> Vec<Case> {
    let assignments = ASSIGNMENTS.into_iter().map(|assignment| {
        let name = format!("{} are assigned to the right guests", assignment.0);
        built::case(name, LIMIT, move || assign(assignment))
    });
    let name = "a guest's device answers beside a guest that attacks all functions";
    assignments.chain([built::case(name, LIMIT, attack)]).collect()
}

fn words(devices: &str) -> Vec<String> {
    devices.split(' ').map(str::to_owned).collect()
}

fn assign((_, trusted, devices, owners, shared): Assignment) -> Result<()> {
    let board = Board { devices: &words(devices), trusted, ..hostile::board()? };
    let (mut found, mut refused) = (BTreeMap::new(), BTreeSet::new());
    let words = "delay=1";
    let guests = if trusted { hostile::trusted(words)? } else { [hostile::guest(words)?; 2] };
    process::watch(&mut board.command(&guests)?, LIMIT, |line| match Fact::parse(line) {
        Some(Fact::Hypervisor(HypervisorFact::Assigned { guest, function, .. })) => {
            found.insert(function, Some(guest));
        }
        Some(Fact::Hypervisor(HypervisorFact::Withheld { function, .. })) => {
            found.insert(function, None);
        }
        Some(Fact::Hypervisor(HypervisorFact::NoIntx { function, reason })) => {
            refused.extend(reason.contains("share").then_some(function));
        }
        _ => {}
    })?;
    let expected = owners.into();
    ensure!(found == expected, "the owners are {found:x?}, not {expected:x?}");
    let shared = shared.iter().copied().collect();
    ensure!(refused == shared, "{refused:x?} must not assert INTx, not {shared:x?}");
    Ok(())
}

/// Runs a guest that attacks all functions, and one that uses its device.
fn attack() -> Result<()> {
    let record = Record { stats: true, ..Record::default() };
    let board = Board { devices: &words(BELOW_PORTS), record, ..hostile::board()? };
    let attack = format!("attack=devices milliseconds={MILLISECONDS}");
    let using = format!("device={MILLISECONDS}");
    let mut qemu = board.command(&[hostile::guest(&attack)?, hostile::guest(&using)?])?;
    let (mut attacked, mut used, mut exit) = (None, None, 0);
    process::watch(qemu.args(COUNTED), LIMIT, |line| match fact_of(line) {
        Some((0, Fact::Hostile(HostileFact::Attacked { turns, .. }))) => attacked = Some(turns),
        Some((1, Fact::Hostile(HostileFact::Used { turns, wrong, exceptions }))) => {
            used = Some((turns, wrong, exceptions));
        }
        Some((_, Fact::Hypervisor(HypervisorFact::Count { longest, .. }))) => {
            exit = exit.max(longest);
        }
        _ => {}
    })?;
    let attacked = attacked.context("the attack did not end")?;
    let (turns, wrong, exceptions) = used.context("the other guest did not report its device")?;
    eprintln!("{attacked} functions attacked, {turns} uses of a device, {exit} in an exit");
    ensure!(attacked.min(turns) >= FEWEST, "only {attacked} attacks and {turns} uses");
    ensure!(wrong == 0, "the device did not answer {wrong} of {turns} times");
    ensure!((1..=EXIT).contains(&exit), "an exit took {exit} instructions");
    ensure!(exceptions == 0, "the device caused {exceptions} exceptions");
    Ok(())
}
