//! Measures the number of ITS commands that set up four devices' vectors, compared with Linux 6.1
//! on the same machine, and the cost of an interrupt. From boot to power-off, Linux posts 66
//! commands with 37 writes of CWRITER and 138 reads of CREADR. In total, it makes 218 accesses to
//! the ITS's registers.

use crate::devices::DeviceKind;
use crate::its_cost::ItsCost;
use crate::machine::Machine;
use crate::report::{Outcome, Report, Verdict, check, tell};
use crate::rig::Rig;
use crate::soft_device::SoftDevice;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use doorbell_facts::WatchedFact;
use image_rt::pci::Function;
use image_rt::{console, cpu, println};
use msi_types::Cpu;

/// Device names, and the number of vectors that Linux allocates for each on two CPUs.
const DEVICES: [(&str, u16); 4] = [("nvme", 3), ("virtio-net", 3), ("virtio-rng", 2), ("edu", 1)];
const LINUX: ItsCost = ItsCost { commands: 66, writes: 37, reads: 138, accesses: 218 };

/// Number of messages that are timed.
const TIMED: u64 = 2000;
/// Number of interrupts whose instructions QEMU logs, and time limit in milliseconds for the runner
/// to turn the log on.
const WATCHED: usize = 16;
const WATCHER_PATIENCE: u64 = 60_000;

pub(super) fn run(machine: &'static Machine, compared: bool, report: &mut Report) {
    report.case("a message to oneself is handled before the next instruction", || time(machine));
    // Linux's figures are for one specific machine, so other machines are not compared.
    if !compared {
        return;
    }
    report.case("half of Linux's queue writes and a quarter of its reads, at most", || {
        compare(machine)
    });
}

/// Reads from a disk; each read causes one interrupt. No other test runs, and the runner makes QEMU
/// log every instruction after this test has reported that it is ready.
pub(super) fn watched(machine: &'static Machine, report: &mut Report) {
    report.case("reads, with somebody watching", || {
        let rig = started(machine, "nvme")?;
        let handler =
            rig.device.handler_address().ok_or(Verdict::Failed("no handler to watch".into()))?;
        tell(WatchedFact::Ready { handler: format!("{handler:x}").into() });
        check!(
            cpu::wait_until(WATCHER_PATIENCE, || console::read().is_some()),
            "the runner did not start watching"
        );
        for _ in 0..WATCHED {
            rig.fire(1, rig.handles[1].effective_affinity())?;
        }
        tell(WatchedFact::Done);
        rig.tear_down()
    });
}

fn compare(machine: &'static Machine) -> Outcome {
    // Set up the CPUs' collections again, as at boot: Linux's figures include the commands for the
    // collections.
    let start = ItsCost::now();
    let its = machine.its.as_ref().ok_or(Verdict::Skipped("no ITS".into()))?;
    for cpu in machine.online_cpus() {
        its.cpu_on(cpu)?;
    }
    println!("note - cost: two CPUs: {}", ItsCost::now() - start);
    let mut rigs = Vec::new();
    for (name, vectors) in DEVICES {
        let before = ItsCost::now();
        rigs.push(set_up(machine, name, vectors)?);
        println!("note - cost: {name}: {vectors} vectors set up: {}", ItsCost::now() - before);
    }
    one_move(machine, &rigs[0])?;
    for rig in rigs {
        let (name, before) = (rig.name.clone(), ItsCost::now());
        rig.tear_down()?;
        println!("note - cost: {name}: torn down: {}", ItsCost::now() - before);
    }
    let total = ItsCost::now() - start;
    println!("note - cost: in all {total}; Linux: {LINUX}");
    // Linux's accesses include ITS bring-up.
    let accesses = total.accesses + machine.its_cost.accesses;
    println!(
        "note - cost: with the ITS's bringing up {accesses} accesses; Linux: {}",
        LINUX.accesses
    );
    let fewer = total.commands < LINUX.commands && accesses < LINUX.accesses;
    let good = fewer && total.writes * 2 <= LINUX.writes && total.reads * 4 <= LINUX.reads;
    check!(good, "{total}");
    Ok(())
}

fn set_up(machine: &Machine, name: &str, vectors: u16) -> Result<Rig, Verdict> {
    let (function, _) = find(machine, name)?;
    Rig::unstarted(machine, name, function, vectors)
}

fn started(machine: &Machine, name: &str) -> Result<Rig, Verdict> {
    let (function, kind) = find(machine, name)?;
    Rig::new(machine, name, function, kind.drive(function))
}

fn find<'a>(
    machine: &'a Machine,
    name: &str,
) -> Result<(&'a Function, &'static DeviceKind), Verdict> {
    let kinds =
        machine.functions.iter().filter_map(|function| Some((function, DeviceKind::of(function)?)));
    let mut named = kinds.filter(|(_, kind)| kind.name == name);
    named.next().ok_or_else(|| Verdict::Skipped(format!("no {name}")))
}

/// Moves one vector. Linux's figures include no MOVI, so our MOVI commands are not counted either.
fn one_move(machine: &Machine, rig: &Rig) -> Outcome {
    let before = ItsCost::now();
    let cpus = machine.online_cpus();
    let from = rig.handles[0].effective_affinity();
    let to = cpus.iter().find(|cpu| **cpu != from).copied().unwrap_or(from);
    rig.handles[0].set_affinity(to)?;
    println!("note - cost: one vector moved: {}", ItsCost::now() - before);
    Ok(())
}

/// Measures the time from unmasking interrupts to a message's handler, and from the handler back to
/// the interrupted code. With QEMU's instruction counting (`-icount shift=0`), a nanosecond is one
/// instruction.
fn time(machine: &Machine) -> Outcome {
    let entered = Arc::new(AtomicU64::new(0));
    let at = entered.clone();
    let device =
        SoftDevice::new(machine, 1, move |_, _| at.store(cpu::ticks(), Ordering::Relaxed))?;
    machine.route(&device.handles[0], Cpu::new(0))?;
    let (mut there, mut back, mut late) = (0, 0, 0);
    for _ in 0..TIMED {
        let state = cpu::irq_save();
        device.fire(0);
        let before = cpu::ticks();
        cpu::irq_restore(state);
        let after = cpu::ticks();
        let handled = entered.load(Ordering::Relaxed);
        if handled < before {
            late += 1;
            continue;
        }
        there += handled - before;
        back += after - handled;
    }
    let average =
        |ticks: u64| ticks * 1_000_000 / cpu::ticks_per_millisecond() / (TIMED - late).max(1);
    println!("note - cost: {} ns to the handler, {} ns back", average(there), average(back));
    check!(late == 0, "{late} of {TIMED} messages were handled late");
    device.tear_down()
}
