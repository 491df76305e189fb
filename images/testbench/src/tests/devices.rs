//! Tests each device, while all are in use: its vectors reach their targets, follow a move, and can
//! be disabled.

use super::explain;
use crate::devices::DeviceKind;
use crate::machine::{LAST_UNHANDLED, Machine, UNHANDLED};
use crate::report::{Outcome, Report, check};
use crate::rig::{PATIENCE, Rig};
use crate::smp;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use image_rt::pci::Function;
use image_rt::{cpu, println};
use irq_domain::IrqHandle;
use msi_types::{Cpu, Pending};

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    let known = || machine.functions.iter().filter_map(|it| Some((it, DeviceKind::of(it)?)));
    let name = |(function, kind): (&Function, &DeviceKind)| {
        format!("{} {}", kind.name, function.requester().function)
    };
    for (function, kind) in known() {
        let name = format!("{}: a wrong requester is named", name((function, kind)));
        report.case(&name, || explain::wrong_requester(machine, function));
    }
    // All functions are in use at the same time, even those that share a requester ID.
    let mut rigs = Vec::new();
    for (function, kind) in known() {
        let name = name((function, kind));
        report.case(&format!("{name}: takes its vectors and starts"), || {
            let rig = Rig::new(machine, &name, function, kind.drive(function))?;
            println!("note - {name}: {} vectors", rig.vectors.len());
            rigs.push((function, rig));
            Ok(())
        });
    }
    for (function, rig) in &rigs {
        one(machine, rig, function, report);
    }
    for (_, rig) in rigs {
        let name = format!("{}: gives everything back", rig.name);
        report.case(&name, || rig.tear_down());
    }
    report.case("nothing arrived without a handler", || {
        let count = UNHANDLED.load(Ordering::Acquire);
        check!(count == 0, "{count}, the last was {}", LAST_UNHANDLED.load(Ordering::Acquire));
        Ok(())
    });
}

fn one(machine: &'static Machine, rig: &Rig, function: &Function, report: &mut Report) {
    let name = &rig.name;
    if rig.device.fires() {
        report.case(&format!("{name}: each vector arrives on the CPU asked for"), || {
            arrive(machine, rig)
        });
    }
    report.case(&format!("{name}: a disabled vector waits and arrives once"), || {
        each_once(rig, |handle, slot| hold(rig, handle, slot))
    });
    if rig.device.fires() && rig.device.posts() {
        report.case(&format!("{name}: what the device sends while disabled arrives once"), || {
            each_once(rig, |handle, slot| hold_device(rig, handle, slot))
        });
    }
    report.case(&format!("{name}: each vector can be sent and dropped at the controller"), || {
        each_once(rig, |handle, slot| resend(rig, handle, slot))
    });
    report.case(&format!("{name}: the faults of a vector are named"), || {
        explain::faults(machine, rig, function)
    });
}

/// Sends each vector to every CPU. If a device has more than two vectors, each vector is sent to
/// only two CPUs.
fn arrive(machine: &Machine, rig: &Rig) -> Outcome {
    let cpus = machine.online_cpus();
    let tries = if rig.vectors.len() > 2 { 2 } else { cpus.len() };
    let mut fired = 0;
    let mut own = 0;
    for vector in &rig.vectors {
        let before = fired;
        for turn in 0..tries {
            let cpu = cpus[(usize::from(vector.slot) + turn) % cpus.len()];
            machine.route(&rig.handles[usize::from(vector.slot)], cpu)?;
            if let Some(runs) = rig.fire(vector.slot, cpu)? {
                fired += 1;
                let good = runs.there > 0 && runs.elsewhere == 0;
                check!(good, "slot {} for CPU {cpu}: {runs:?}", vector.slot);
            }
        }
        own += u32::from(fired > before);
    }
    println!(
        "note - {}: {own} of {} vectors rung by the device itself",
        rig.name,
        rig.vectors.len()
    );
    check!(fired > 0, "the driver cannot make the device send a message");
    Ok(())
}

fn each_once(rig: &Rig, mut test: impl FnMut(&IrqHandle, u16) -> Outcome) -> Outcome {
    for (handle, vector) in rig.handles.iter().zip(&rig.vectors) {
        test(handle, vector.slot)?;
    }
    Ok(())
}

/// Checks messages that the device sends while its vector is disabled at the device's mask bits or,
/// if it has none, at the controller.
fn hold_device(rig: &Rig, handle: &IrqHandle, slot: u16) -> Outcome {
    settle(rig, handle, slot)?;
    let before = rig.counts.of(slot);
    handle.disable();
    // If neither message arrives after `enable`, they coalesce into one interrupt.
    let fired = rig.device.fire(slot)? && rig.device.fire(slot)?;
    let early = cpu::wait_until(5, || rig.counts.of(slot) > before);
    let pending = !fired || cpu::wait_until(PATIENCE, || handle.is_pending() != Some(false));
    handle.enable();
    check!(!early, "slot {slot} ran while it was disabled");
    check!(pending, "slot {slot} is not pending");
    if fired { expect_one_more(rig, slot, before) } else { Ok(()) }
}

/// Checks messages generated by the controller. The controller can generate a message of every
/// device.
fn hold(rig: &Rig, handle: &IrqHandle, slot: u16) -> Outcome {
    settle(rig, handle, slot)?;
    let before = rig.counts.of(slot);
    handle.disable();
    handle.set_pending(Pending::Set);
    handle.set_pending(Pending::Set);
    // If the interrupt were signaled only after `enable`, we'd count another run.
    smp::catch_up(handle.effective_affinity())?;
    let early = cpu::wait_until(5, || rig.counts.of(slot) > before);
    handle.enable();
    check!(!early, "slot {slot} ran while it was disabled");
    expect_one_more(rig, slot, before)
}

fn resend(rig: &Rig, handle: &IrqHandle, slot: u16) -> Outcome {
    settle(rig, handle, slot)?;
    let before = rig.counts.of(slot);
    handle.set_pending(Pending::Set);
    expect_one_more(rig, slot, before)?;
    // Clear the pending state while the CPU has its interrupts masked.
    if handle.effective_affinity() == Cpu::new(0) {
        let before = rig.counts.of(slot);
        let state = cpu::irq_save();
        handle.set_pending(Pending::Set);
        handle.set_pending(Pending::Clear);
        cpu::irq_restore(state);
        let ran = cpu::wait_until(5, || rig.counts.of(slot) > before);
        check!(!ran, "slot {slot} ran although its pending state was cleared");
    }
    Ok(())
}

/// Waits until no more messages arrive.
fn settle(rig: &Rig, handle: &IrqHandle, slot: u16) -> Outcome {
    smp::catch_up(handle.effective_affinity())?;
    let mut last = rig.counts.of(slot);
    while cpu::wait_until(3, || rig.counts.of(slot) != last) {
        last = rig.counts.of(slot);
    }
    Ok(())
}

fn expect_one_more(rig: &Rig, slot: u16, before: u64) -> Outcome {
    cpu::wait_until(PATIENCE, || rig.counts.of(slot) > before);
    cpu::wait_until(3, || rig.counts.of(slot) > before + 1);
    let runs = rig.counts.of(slot) - before;
    check!(runs == 1, "slot {slot} ran {runs} times");
    Ok(())
}
