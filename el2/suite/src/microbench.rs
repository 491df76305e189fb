//! Runs `el2/microbench` as the guest: checks the cost of each operation in instructions and in
//! exits, which the hypervisor counts (`stats`), and that a vCPU wakes after it was moved.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use doorbell_facts::{Fact, MicrobenchFact};
use doorbell_harness::image::Image;
use doorbell_harness::suite::{Case, Shared};

use crate::board::{Board, COUNTED, COUNTING, Controller, GICV4, LIMIT, MOVES};
use crate::built;
use crate::costs::Costs;
use crate::files::{Files, RAM};
use crate::output::Output;

/// Operations of the guest, and the maximum number of instructions of each, which is less than on
/// Linux's KVM. The limits are 2 % above the measured counts.
const LIMITS: &[(&str, u64)] = &[
    ("hypercall", 140),
    ("register", 200),
    ("lpi", 1_433),
    ("invall", 115),
    ("msi", 512),
    ("timer", 1_518),
];
/// Limits of an SGI between two vCPUs. If they share a CPU, it makes each of them leave the CPU.
const IPI: &[(&str, u64)] = &[("ipi", 856)];
const SHARED_IPI: &[(&str, u64)] = &[("ipi", 4_083)];
/// Maximum number of exits of an operation. An SGI causes one exit when it is sent, and one when
/// the other vCPU is kicked. An LPI from an INT command causes a write of `GITS_CWRITER` and a read
/// of `GITS_CREADR`. A device's MSI and the timer each cause one exit, for the physical interrupt.
const EXITS: &[(&str, u64)] =
    &[("hypercall", 1), ("register", 1), ("ipi", 2), ("lpi", 2), ("msi", 1), ("timer", 1)];

/// Instructions of each operation and exits of all its repetitions under Linux's KVM, on Debian
/// 12's Linux 6.1 (docs/measurements.md).
const KVM: &[(&str, u64, u64)] = &[
    ("hypercall", 1_127, 202),
    ("register", 1_905, 202),
    ("lpi", 6_185, 402),
    ("invall", 4_112, 402),
    ("msi", 3_332, 202),
    ("timer", 2_531, 206),
];
/// Costs that depend on whether each vCPU has a CPU, or both share one.
const KVM_EACH: &[(&str, u64, u64)] = &[("eoi", 2, 2), ("ipi", 4_708, 402)];
const KVM_SHARED: &[(&str, u64, u64)] = &[("eoi", 3, 2), ("ipi", 15_611, 402)];

const VCPUS: u8 = 2;
const MEMORY: u32 = 64;
/// QEMU's educational device, whose MSI the guest measures.
pub(crate) const DEVICE: &str = "edu";
/// Number of operations of each kind that the guest performs.
pub(crate) const TURNS: u64 = 201;

/// A machine with a CPU for each of the guest's vCPUs, and one with a CPU that they share.
pub(crate) const EACH: Board<'_> =
    Board { vcpus: VCPUS, cpus: VCPUS, ..Board::plain(COUNTING, MEMORY) };
pub(crate) const SHARED: Board<'_> = Board { cpus: 1, ..EACH };
/// A machine with GICv4, on which the device's messages are to be injected directly.
pub(crate) const DIRECT: Board<'_> = Board { machine: GICV4, direct: true, ..EACH };

/// A machine, and limits of the instructions of operations on it.
type Run = (&'static str, Board<'static>, [&'static [(&'static str, u64)]; 2]);

const RUNS: [Run; 3] = [
    ("on 2 CPUs", EACH, [LIMITS, IPI]),
    ("on 1 CPUs", SHARED, [LIMITS, SHARED_IPI]),
    ("by direct LPI", Board { controller: Controller::DirectLpi, ..EACH }, [&[("msi", 889)], &[]]),
];

/// Lists the cases: one for each operation and its limit, and one for the vCPU that is woken.
pub(crate) fn cases() -> Vec<Case> {
    static COSTS: [Shared<Costs>; RUNS.len()] = [const { Shared::new() }; RUNS.len()];
    static EXITING: Shared<Costs> = Shared::new();
    let mut cases = Vec::new();
    for ((how, board, limits), costs) in RUNS.into_iter().zip(&COSTS) {
        for &(operation, limit) in limits.into_iter().flatten() {
            let name = format!("a guest's {operation} {how} takes at most {limit} instructions");
            cases.push(built::case(name, LIMIT, move || {
                let costs = costs.get(|| {
                    let costs = measure(board)?;
                    eprintln!("instructions of 2 vCPUs {how}: {costs}");
                    Ok(costs)
                })?;
                costs.judge_instructions(operation, limit)
            }));
        }
    }
    cases.push(built::case("a vCPU that sleeps is woken by what comes after a move", LIMIT, wake));
    for &(operation, limit) in EXITS {
        let name = format!("a guest's {operation} takes at most {limit} exits");
        cases.push(built::case(name, LIMIT, move || {
            let costs = EXITING.get(|| measure(Board { stats: true, ..EACH }))?;
            costs.judge_exits(operation, limit)
        }));
    }
    cases
}

/// Checks that the guest wakes its other CPU, which slept while it was moved.
fn wake() -> Result<()> {
    let output = Output::of(&mut command(Board { move_every: Some(1), ..EACH }, 1)?)?;
    let is_woken = |fact: &Fact| matches!(fact, Fact::Microbench(MicrobenchFact::Woken { .. }));
    let is_woken = output.facts.iter().any(|(_, fact)| is_woken(fact));
    ensure!(is_woken, "the guest did not report that the vCPU was woken");
    output.judge_faults()?;
    output.judge(MOVES)
}

/// Prints the costs of the guest's operations next to those recorded on Linux's KVM.
pub(crate) fn compare() -> Result<ExitCode> {
    for (board, record) in [(EACH, KVM_EACH), (SHARED, KVM_SHARED)] {
        println!("2 vCPUs on {} CPUs", board.cpus);
        println!("the hypervisor: {}", costs(board)?);
        println!("Linux's KVM:    {}", Costs::recorded(&[KVM, record].concat()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the costs of the guest's operations. The numbers of exits are from a second run that
/// counts them.
pub(crate) fn costs(board: Board<'_>) -> Result<Costs> {
    let mut costs = measure(board)?;
    costs.exits = measure(Board { stats: true, ..board })?.exits;
    Ok(costs)
}

pub(crate) fn measure(board: Board<'_>) -> Result<Costs> {
    Ok(Costs::of(&Output::of(&mut command(board, 1)?)?))
}

/// Returns the guest's files.
pub(crate) fn guest() -> Result<Files<'static>> {
    static GUEST: Shared<Image> = Shared::new();
    Ok(Files::alone(&GUEST.get(|| built::guest("microbench", RAM))?.flat, ""))
}

/// Returns the command that starts QEMU with guests and a device for each, and counts time in
/// instructions.
pub(crate) fn command(board: Board<'_>, guests: usize) -> Result<Command> {
    let devices = vec![DEVICE; guests];
    let board = Board { devices: &devices, ..board };
    let mut qemu = board.command(&vec![guest()?; guests])?;
    qemu.args(COUNTED);
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_below_kvms_costs() {
        for (limits, costs) in [(IPI, KVM_EACH), (SHARED_IPI, KVM_SHARED)] {
            for (operation, limit) in limits.iter().chain(LIMITS) {
                let mut rows = costs.iter().chain(KVM).filter(|(name, ..)| name == operation);
                assert!(rows.any(|(_, cost, _)| limit < cost), "{operation}");
            }
        }
    }
}
