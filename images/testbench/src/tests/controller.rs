//! The ITS's commands, by what they do to a message: INV, INT, CLEAR, MOVI, DISCARD, MAPC; and a command that fails.

use super::online;
use crate::check;
use crate::machine::{Machine, UNHANDLED};
use crate::platform::break_next_table;
use crate::report::{Outcome, Report, Verdict};
use crate::soft_device::{self, SoftDevice};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_driver::Its;
use gic_driver::its::EventRequest;
use image_rt::cpu::{self, MAX_CPUS};
use msi_types::{Cpu, DeviceId, Initially, MsiMessage, Pending, Shape};

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    report.case("a message for an event that is not mapped does nothing", || unmapped(machine));
    report.case("a discarded event's message does nothing", || discarded(machine));
    report.case("INV holds a message back, and lets it through", || held(machine));
    report.case("CLEAR drops a message that is held back", || cleared(machine));
    report.case("MOVI takes a pending message along", || moved(machine));
    report.case("what is pending at a CPU that leaves the ITS arrives at its heir", || inherited(machine));
    report.case("a command that fails stalls the queue, is named, and the ITS goes on", || stalled(machine));
}

/// Runs of a soft device's only handler, by CPU.
type Runs = Arc<[AtomicU64; MAX_CPUS]>;

fn one_vector(machine: &Machine) -> Result<(SoftDevice, Runs), Verdict> {
    let runs: Runs = Arc::new([const { AtomicU64::new(0) }; MAX_CPUS]);
    let counts = runs.clone();
    let device = SoftDevice::new(machine, 1, move |_, context| {
        counts[context.cpu().index()].fetch_add(1, Ordering::Release);
    })?;
    Ok((device, runs))
}

fn on(runs: &Runs, cpu: Cpu) -> u64 {
    runs[cpu.index()].load(Ordering::Acquire)
}

fn all(runs: &Runs) -> u64 {
    runs.iter().map(|count| count.load(Ordering::Acquire)).sum()
}

/// Waits for a first run, and a little for a second.
fn check_runs(runs: &Runs, cpu: Cpu, wanted: u64) -> Outcome {
    cpu::wait_until(if wanted == 0 { 5 } else { 2000 }, || all(runs) > 0);
    cpu::wait_until(5, || all(runs) > wanted);
    let (there, everywhere) = (on(runs, cpu), all(runs));
    check!((there, everywhere) == (wanted, wanted), "{there} runs on CPU {cpu}, {everywhere} in all");
    Ok(())
}

fn its(machine: &Machine) -> Result<&Arc<Its<crate::platform::Kernel>>, Verdict> {
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
    check!(UNHANDLED.load(Ordering::Acquire) == before, "something arrived");
    device.fire(0);
    check_runs(&runs, device.vectors[0].cpu, 1)?;
    device.tear_down()
}

fn discarded(machine: &Machine) -> Outcome {
    let (device, runs) = one_vector(machine)?;
    let sender = device.sender.clone();
    device.tear_down()?;
    let before = UNHANDLED.load(Ordering::Acquire);
    sender.fire(0);
    check_runs(&runs, Cpu::new(0), 0)?;
    check!(UNHANDLED.load(Ordering::Acquire) == before, "it arrived without a handler");
    Ok(())
}

fn held(machine: &Machine) -> Outcome {
    let (device, runs) = one_vector(machine)?;
    let cpu = device.vectors[0].cpu;
    device.handles[0].disable();
    device.fire(0);
    device.fire(0);
    check_runs(&runs, cpu, 0)?;
    device.handles[0].enable();
    check_runs(&runs, cpu, 1)?;
    device.tear_down()
}

fn cleared(machine: &Machine) -> Outcome {
    let (device, runs) = one_vector(machine)?;
    device.handles[0].disable();
    device.fire(0);
    device.handles[0].set_pending(Pending::Clear);
    device.handles[0].enable();
    check_runs(&runs, device.vectors[0].cpu, 0)?;
    device.handles[0].set_pending(Pending::Set);
    check_runs(&runs, device.vectors[0].cpu, 1)?;
    device.tear_down()
}

/// The boot CPU and another one.
fn two_cpus(machine: &Machine) -> Result<(Cpu, Cpu), Verdict> {
    match online(machine)[..] {
        [first, .., last] => Ok((first, last)),
        _ => Err(Verdict::Skipped("there is one CPU".into())),
    }
}

fn moved(machine: &Machine) -> Outcome {
    let (here, there) = two_cpus(machine)?;
    let (device, runs) = one_vector(machine)?;
    let handle = &device.handles[0];
    handle.set_affinity(there)?;
    handle.disable();
    device.fire(0);
    handle.set_affinity(here)?;
    handle.enable();
    check_runs(&runs, here, 1)?;
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
    cpu::wait_until(2000, || on(&runs, here) == 2);
    check!(on(&runs, here) == 2, "a later message did not go to the heir");
    let redistributor = machine.gic.redistributor(there).ok_or(Verdict::Failed("no redistributor".into()))?;
    its.cpu_on(&redistributor)?;
    // By way of another CPU, because the interrupt core was not told of the heir.
    handle.set_affinity(here)?;
    handle.set_affinity(there)?;
    device.fire(0);
    cpu::wait_until(2000, || on(&runs, there) == 1);
    let counts = (on(&runs, here), on(&runs, there));
    check!(counts == (2, 1), "after the CPU's return the runs are {counts:?}");
    device.tear_down()
}

/// QEMU's ITS stalls when it cannot reach a table: the device gets one that is not memory.
fn stalled(machine: &Machine) -> Outcome {
    const NOBODY: DeviceId = DeviceId::new(0xfff8);
    let its = its(machine)?;
    let request = EventRequest {
        count: NonZeroU16::MIN,
        shape: Shape::Independent,
        cpu: Cpu::new(0),
        initially: Initially::Unmasked,
    };
    let free = machine.gic.lpis()?.available();
    // The device table has a page for it from now on.
    its.detach(its.attach(NOBODY, 1)?);
    break_next_table();
    let device = its.attach(NOBODY, 1)?;
    let answer = its.map_events(&device, request);
    its.detach(device);
    let Err(error) = answer else { return Err(Verdict::Failed("the event was mapped".into())) };
    let text = error.to_string();
    check!(text == format!("its@{:x}, MAPTI device {NOBODY} event 0x0: queue stalled", its.base()), "{text}");
    check!(machine.gic.lpis()?.available() == free, "LPIs are lost");
    let (device, runs) = one_vector(machine)?;
    device.fire(0);
    check_runs(&runs, device.vectors[0].cpu, 1)?;
    device.tear_down()
}
