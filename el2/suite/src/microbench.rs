//! Runs `el2/microbench` as the guest: checks the cost of each operation, and that a vCPU wakes
//! after it was moved.

use std::process::Command;

use anyhow::{Result, ensure};
use doorbell_facts::{Fact, MicrobenchFact};
use doorbell_harness::image::Image;
use doorbell_harness::process;
use doorbell_harness::suite::{Case, Shared};

use crate::board::{Board, COUNTED, COUNTING, LIMIT, MOVES, Record};
use crate::built;
use crate::controller::Controller;
use crate::costs::Costs;
use crate::files::{Files, RAM};
use crate::machine::GICV4;
use crate::outcome::Outcome;

/// Operations of the guest, and the maximum number of instructions of each, which is less than on
/// Linux's KVM. The limits are 2 % above the measured counts.
const LIMITS: &[(&str, u64)] = &[
    ("hypercall", 140),
    ("register", 200),
    ("ipi", 856),
    ("lpi", 1_433),
    ("invall", 115),
    ("msi", 512),
    ("timer", 1_518),
];
/// Limits for two vCPUs that share a CPU. An SGI between the two vCPUs makes each of them leave the
/// CPU.
const SHARED_LIMITS: &[(&str, u64)] = &[
    ("hypercall", 140),
    ("register", 200),
    ("ipi", 4_083),
    ("lpi", 1_433),
    ("invall", 115),
    ("msi", 512),
    ("timer", 1_518),
];
/// Instruction limit of a message that signals a direct LPI.
const DIRECT_LIMIT: u64 = 889;

/// Number of CPUs of the machine: either one for each of the guest's vCPUs, or one that they share.
pub(crate) const EACH: u8 = VCPUS;
pub(crate) const SHARED: u8 = 1;
const VCPUS: u8 = 2;
const MEMORY: u32 = 64;
/// QEMU's educational device, whose MSI the guest measures.
pub(crate) const DEVICE: &str = "edu";

/// Lists the cases: one for each operation and its limit, and one for the vCPU that is woken.
pub(crate) fn cases() -> Vec<Case> {
    static COSTS: [Shared<Costs>; 2] = [const { Shared::new() }; 2];
    let mut cases = Vec::new();
    for ((cpus, limits), costs) in [(EACH, LIMITS), (SHARED, SHARED_LIMITS)].into_iter().zip(&COSTS)
    {
        for &(operation, limit) in limits {
            let name =
                format!("a guest's {operation} on {cpus} CPUs takes at most {limit} instructions");
            cases.push(built::case(name, LIMIT, move || {
                let costs = costs.get(|| {
                    let costs = watch(cpus, Record::default())?;
                    eprintln!("instructions of 2 vCPUs on {cpus} CPUs: {costs}");
                    Ok(costs)
                })?;
                costs.judge_instructions(operation, limit)
            }));
        }
    }
    let name = format!("a guest's msi by direct LPI takes at most {DIRECT_LIMIT} instructions");
    cases.push(built::case(name, LIMIT, || {
        let mut costs = Costs::default();
        let mut qemu = by_direct_lpi()?;
        process::watch(&mut qemu, LIMIT, |line| costs.line(line))?;
        eprintln!("instructions of 2 vCPUs on {EACH} CPUs with direct LPIs: {costs}");
        costs.judge_instructions("msi", DIRECT_LIMIT)
    }));
    let name = "a vCPU that sleeps is woken by what comes after a move";
    cases.push(built::case(name, LIMIT, || wakes(command(EACH, Record::default(), Some(1))?)));
    cases
}

/// Checks that the guest wakes its other CPU, which slept while it was moved.
fn wakes(mut qemu: Command) -> Result<()> {
    let (mut is_woken, mut outcome) = (false, Outcome::default());
    process::watch(&mut qemu, LIMIT, |line| {
        outcome.line(line);
        let fact = Fact::parse(line);
        is_woken |= matches!(fact, Some(Fact::Microbench(MicrobenchFact::Woken { .. })));
    })?;
    ensure!(is_woken, "the guest did not report that the vCPU was woken");
    outcome.judge_faults()?;
    outcome.judge(MOVES)
}

/// Measures the costs of the guest's operations. The numbers of exits are from a second run
/// that prints them.
pub(crate) fn costs(cpus: u8) -> Result<Costs> {
    let printed = watch(cpus, Record { exits: true, ..Record::default() })?;
    Ok(watch(cpus, Record::default())?.with_exits_of(printed))
}

fn watch(cpus: u8, record: Record) -> Result<Costs> {
    let mut costs = Costs::default();
    process::watch(&mut command(cpus, record, None)?, LIMIT, |line| costs.line(line))?;
    Ok(costs)
}

/// Returns the guest's image.
pub(crate) fn guest() -> Result<&'static Image> {
    static GUEST: Shared<Image> = Shared::new();
    GUEST.get(|| built::guest("microbench", RAM))
}

/// Returns the command that starts QEMU with the guest and counts time in instructions.
/// `move_every` is the interval between moves of the guest, in milliseconds.
pub(crate) fn command(cpus: u8, record: Record, move_every: Option<u32>) -> Result<Command> {
    let plain = Board::plain(COUNTING, MEMORY)?;
    counted(Board { vcpus: VCPUS, cpus, move_every, record, ..plain })
}

/// Returns the command for a guest whose messages signal direct LPIs.
fn by_direct_lpi() -> Result<Command> {
    let (plain, controller) = (Board::plain(COUNTING, MEMORY)?, Controller::DirectLpi);
    counted(Board { vcpus: VCPUS, cpus: EACH, controller, ..plain })
}

/// Returns a machine with GICv4, on which the device's messages are to be injected directly.
pub(crate) fn directly(record: Record) -> Result<Board<'static>> {
    let (plain, machine) = (Board::plain(COUNTING, MEMORY)?, GICV4);
    Ok(Board { machine, vcpus: VCPUS, cpus: EACH, direct: true, record, ..plain })
}

/// Returns the command that starts QEMU with the guest and its device, and counts time in
/// instructions.
pub(crate) fn counted(board: Board<'_>) -> Result<Command> {
    counted_guests(board, 1)
}

/// Returns the same command with several such guests.
pub(crate) fn counted_guests(board: Board<'_>, guests: usize) -> Result<Command> {
    let devices = vec![DEVICE.to_owned(); guests];
    let board = Board { devices: &devices, ..board };
    let files = Files { kernel: &guest()?.flat, initrd: None, append: "" };
    let mut qemu = board.command(&vec![files; guests])?;
    qemu.args(COUNTED);
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::{KVM, KVM_SHARED};

    #[test]
    fn limits_are_below_kvms_costs() {
        for (limits, costs) in [(LIMITS, KVM), (SHARED_LIMITS, KVM_SHARED)] {
            for (operation, limit) in limits {
                let mut rows = costs.iter().filter(|(name, ..)| name == operation);
                assert!(rows.any(|(_, cost, _)| limit < cost), "{operation}");
            }
        }
    }
}
