//! Tests the ITS commands MOVI, MOVALL, DISCARD and MAPC by their effect on a message, and also
//! tests a command that fails. The tests of devices cover INV, INT and CLEAR.

use super::suspend::Tables;
use crate::controller::{LEAVES_PENDING, gicv3, its_frame};
use crate::machine::{Machine, UNHANDLED};
use crate::report::{Outcome, Report, Verdict, check, skip};
use crate::smp::{self, PerCpu};
use crate::soft_device::{self, SoftDevice};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicBool, Ordering};
use gic_arch::Reg;
use gic_arch::gits::{self, Ctlr};
use gic_bringup::MsiController;
use gic_driver::its::EventRequest;
use gic_driver::{Its, Mmio, MmioExt};
use image_rt::cpu;
use image_rt::platform::Kernel;
use msi_types::{Cpu, DeviceId, MsiMessage};

pub(super) fn run(machine: &'static Machine, tables: Tables, report: &mut Report) {
    report.case("a message for an event that is not mapped does nothing", || unmapped(machine));
    report.case(
        "the message of a vector that was given back does nothing, not even to its next owner",
        || discarded(machine),
    );
    let name = if leaves_pending_lpis(machine) {
        "a moved LPI that is pending arrives where it was"
    } else {
        "a move takes a pending message along"
    };
    report.case(name, || moved(machine));
    report.case("MOVALL takes along what is pending at a CPU, and nothing else", || {
        all_moved(machine)
    });
    report.case("what is pending at a CPU that leaves the ITS arrives at its heir", || {
        inherited(machine)
    });
    report.case("a command that fails stalls the queue, is named, and the ITS goes on", || {
        stalled(machine, tables)
    });
}

fn one_vector(machine: &Machine) -> Result<(SoftDevice, Arc<PerCpu>), Verdict> {
    SoftDevice::counting(machine, 1)
}

/// Waits for the first handler run, and then briefly for a second one.
fn check_runs(runs: &PerCpu, cpu: Cpu, wanted: u64) -> Outcome {
    cpu::wait_until(if wanted == 0 { 5 } else { 2000 }, || runs.all() > 0);
    cpu::wait_until(5, || runs.all() > wanted);
    let (there, everywhere) = (runs.on(cpu), runs.all());
    check!(
        (there, everywhere) == (wanted, wanted),
        "{there} runs on CPU {cpu}, {everywhere} in all"
    );
    Ok(())
}

fn its(machine: &Machine) -> Result<&Arc<Its<Kernel>>, Verdict> {
    machine.its.as_ref().ok_or(Verdict::Skipped("no ITS".into()))
}

fn unmapped(machine: &Machine) -> Outcome {
    let (device, runs) = one_vector(machine)?;
    let address = its(machine)?.doorbell();
    let before = UNHANDLED.load(Ordering::Acquire);
    for data in [1, 0xffff, 0xffff_ffff] {
        soft_device::send(MsiMessage { address, data });
    }
    check_runs(&runs, Cpu::new(0), 0)?;
    check_unhandled(before, "an interrupt without a handler was signaled")?;
    device.fire(0);
    check_runs(&runs, device.vectors[0].cpu, 1)?;
    device.tear_down()
}

fn discarded(machine: &Machine) -> Outcome {
    if machine.is_chained() {
        skip!("no CPU can send a message to a host bridge");
    }
    let (device, runs) = one_vector(machine)?;
    let late = device.sender.message(0).ok_or(Verdict::Failed("no message".into()))?;
    device.tear_down()?;
    let before = UNHANDLED.load(Ordering::Acquire);
    soft_device::send(late);
    check_runs(&runs, Cpu::new(0), 0)?;
    check_unhandled(before, "the message was signaled without a handler")?;
    let (next, next_runs) = one_vector(machine)?;
    check_runs(&next_runs, Cpu::new(0), 0)?;
    check_unhandled(before, "the message was signaled before the next owner had a handler")?;
    next.fire(0);
    check_runs(&next_runs, next.vectors[0].cpu, 1)?;
    next.tear_down()
}

/// Checks that no interrupt without a handler was signaled since `before` of them were counted.
fn check_unhandled(before: u64, fault: &str) -> Outcome {
    check!(UNHANDLED.load(Ordering::Acquire) == before, "{fault}");
    Ok(())
}

/// Returns the boot CPU and one other CPU.
fn two_cpus(machine: &Machine) -> Result<(Cpu, Cpu), Verdict> {
    match machine.online_cpus()[..] {
        [first, .., last] => Ok((first, last)),
        _ => Err(Verdict::Skipped("there is one CPU".into())),
    }
}

/// Returns `true` if pending LPIs stay at their redistributor when they are moved. LPIs behave this
/// way on machines without an ITS ([`DirectLpi`](gic_driver::DirectLpi)).
fn leaves_pending_lpis(machine: &Machine) -> bool {
    let mut controllers = machine.irqchip.controllers();
    controllers.any(|(_, driver)| matches!(driver, MsiController::DirectLpi(_)))
}

fn moved(machine: &Machine) -> Outcome {
    let (here, there) = two_cpus(machine)?;
    let (device, runs) = one_vector(machine)?;
    let handle = &device.handles[0];
    machine.route(handle, there)?;
    handle.disable();
    device.fire(0);
    machine.route(handle, here)?;
    handle.enable();
    let followed = cpu::wait_until(500, || runs.all() > 0);
    if !followed && handle.is_pending() == Some(true) && machine.its.is_none() {
        handle.set_affinity(there)?;
        check_runs(&runs, there, 1)?;
        device.tear_down()?;
        LEAVES_PENDING.store(true, Ordering::Relaxed);
        skip!("this QEMU leaves what is pending behind");
    }
    check_runs(&runs, if leaves_pending_lpis(machine) { there } else { here }, 1)?;
    device.tear_down()
}

/// Tests MOVALL. The CPU at which the message is pending does not acknowledge it, because
/// interrupts are masked on that CPU.
fn all_moved(machine: &'static Machine) -> Outcome {
    let its = its(machine)?;
    let (here, there) = two_cpus(machine)?;
    let (device, runs) = one_vector(machine)?;
    device.handles[0].set_affinity(there)?;
    let [masked, done] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (is_masked, is_done) = (masked.clone(), done.clone());
    smp::start_on(there, move || {
        let state = cpu::irq_save();
        is_masked.store(true, Ordering::Release);
        cpu::wait_until(10_000, || is_done.load(Ordering::Acquire));
        cpu::irq_restore(state);
    });
    cpu::wait_until(2000, || masked.load(Ordering::Acquire));
    device.fire(0);
    let early = cpu::wait_until(5, || runs.all() > 0);
    let answer = its.move_all_pending(there, here);
    cpu::wait_until(2000, || runs.on(here) > 0);
    done.store(true, Ordering::Release);
    smp::wait_for(there)?;
    answer?;
    check!(!early, "the handler ran although interrupts of its CPU are masked");
    check_runs(&runs, here, 1)?;
    device.fire(0);
    cpu::wait_until(2000, || runs.all() == 2);
    check!(runs.on(there) == 1, "the event itself was moved with the pending LPIs");
    device.tear_down()
}

fn inherited(machine: &Machine) -> Outcome {
    let (here, there) = two_cpus(machine)?;
    let its = its(machine)?;
    let (device, runs) = one_vector(machine)?;
    let handle = &device.handles[0];
    handle.set_affinity(there)?;
    handle.disable();
    device.fire(0);
    its.cpu_off(there, here)?;
    handle.enable();
    check_runs(&runs, here, 1)?;
    device.fire(0);
    cpu::wait_until(2000, || runs.on(here) == 2);
    check!(runs.on(here) == 2, "a later message was not delivered to the heir");
    its.cpu_on(there)?;
    // The interrupt core doesn't know that the CPU that takes over already has the interrupt, so
    // the core moves the interrupt again.
    handle.set_affinity(there)?;
    device.fire(0);
    cpu::wait_until(2000, || runs.on(there) == 1);
    let counts = (runs.on(here), runs.on(there));
    check!(counts == (2, 1), "runs after the CPU was turned on again: {counts:?}");
    device.tear_down()
}

/// Tests a command that fails. QEMU's ITS stalls if it cannot access a table, so the device table
/// is meanwhile not backed by memory. If the ITS keeps its mappings elsewhere, the command cannot
/// fail, and the test is skipped.
fn stalled(machine: &Machine, tables: Tables) -> Outcome {
    const NOBODY: DeviceId = DeviceId::new(0xfff8);
    /// An address that is not RAM on `virt`, far away from all RAM.
    const NO_MEMORY: u64 = 0x60_0000_0000;
    const ADDRESS: u64 = 0xffff_ffff_f000;
    let its = its(machine)?;
    if tables == Tables::Inside {
        skip!("the ITS keeps its tables elsewhere");
    }
    let request = EventRequest::new(NonZeroU16::MIN, Cpu::new(0));
    let free = gicv3(machine.gic())?.lpis()?.available();
    let device = its.attach(NOBODY, 1)?;
    let (frame, register) = (its_frame(its)?, gits::BASER.get(0).map_or(0, Reg::offset));
    let table = frame.read64(register);
    let place = |table| {
        frame.write(gits::CTLR, Ctlr::new());
        frame.write64(register, table);
        frame.write(gits::CTLR, Ctlr::new().with_enabled(true));
    };
    place(table & !ADDRESS | NO_MEMORY);
    let mapped = its.map_events(&device, request);
    place(table);
    its.detach(device);
    let text = mapped.map_or_else(|error| error.to_string(), |_| "no error".into());
    let expected = format!("its@{:x}, MAPD device {NOBODY}: queue stalled", its.base());
    check!(text == expected, "{text}");
    check!(gicv3(machine.gic())?.lpis()?.available() == free, "LPIs are lost");
    let (device, runs) = one_vector(machine)?;
    device.fire(0);
    check_runs(&runs, device.vectors[0].cpu, 1)?;
    device.tear_down()
}
