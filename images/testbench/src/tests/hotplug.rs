//! Tests of a CPU that is turned off by PSCI and on again, and of a GIC that is suspended.

use crate::controller::{Tested as _, registers};
use crate::machine::Machine;
use crate::report::{Outcome, Report, check, skip};
use crate::smp;
use crate::soft_device::SoftDevice;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use image_rt::cpu::{self, MAX_CPUS};
use msi_types::Cpu;

const VECTORS: u16 = 8;

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    report.case("a CPU leaves, its interrupts arrive elsewhere, and it comes back", || {
        leave_and_return(machine)
    });
    report.case("CPUs leave and return many times", || many_times(machine));
    report.case("the GIC and the ITS sleep and wake, and keep what is pending", || {
        sleep_and_wake(machine)
    });
}

type Runs = Arc<[AtomicU64; MAX_CPUS]>;

fn device(machine: &Machine) -> Result<(SoftDevice, Runs), crate::report::Verdict> {
    let runs: Runs = Arc::new([const { AtomicU64::new(0) }; MAX_CPUS]);
    let counts = runs.clone();
    let device = SoftDevice::new(machine, VECTORS, move |_, context| {
        counts[context.cpu().index()].fetch_add(1, Ordering::Release);
    })?;
    Ok((device, runs))
}

/// Makes the device send a message of every vector. Returns the number of handler runs on `cpu`.
fn fire_all(device: &SoftDevice, runs: &Runs, cpu: Cpu) -> Result<u64, crate::report::Verdict> {
    let all = || runs.iter().map(|count| count.load(Ordering::Acquire)).sum::<u64>();
    let (before, there) = (all(), runs[cpu.index()].load(Ordering::Acquire));
    for slot in 0..VECTORS {
        device.fire(slot);
    }
    cpu::wait_until(2000, || all() == before + u64::from(VECTORS));
    let arrived = all() - before;
    check!(arrived == u64::from(VECTORS), "{arrived} of {VECTORS} messages arrived");
    Ok(runs[cpu.index()].load(Ordering::Acquire) - there)
}

pub(super) fn take_away(machine: &'static Machine, cpu: Cpu) -> Outcome {
    let mut stranded = Vec::new();
    let offline = machine.irqchip.cpu_offline(cpu, Cpu::new(0), |one| stranded.push(one));
    check!(stranded.is_empty(), "{stranded:?} stay on CPU {cpu}");
    offline?;
    smp::turn_off(machine, cpu)
}

fn leave_and_return(machine: &'static Machine) -> Outcome {
    let Some(cpu) = machine.online_cpus().last().copied().filter(|cpu| *cpu != Cpu::new(0)) else {
        skip!("there is one CPU")
    };
    let (device, runs) = device(machine)?;
    let all_there = |device: &SoftDevice| -> Outcome {
        for handle in &device.handles {
            machine.route(handle, cpu)?;
        }
        let there = fire_all(device, &runs, cpu)?;
        check!(there == u64::from(VECTORS), "{there} of {VECTORS} messages arrived at CPU {cpu}");
        Ok(())
    };
    all_there(&device)?;
    take_away(machine, cpu)?;
    check!(!machine.gic().is_on(cpu), "the GIC driver still considers CPU {cpu} to be on");
    check!(
        machine.route(&device.handles[0], cpu).is_err(),
        "a vector was moved to a CPU that is off"
    );
    let there = fire_all(&device, &runs, cpu)?;
    check!(there == 0, "{there} messages arrived at a CPU that is off");
    smp::turn_on(machine, cpu)?;
    all_there(&device)?;
    device.tear_down()
}

fn many_times(machine: &'static Machine) -> Outcome {
    let cpus: Vec<_> =
        machine.online_cpus().into_iter().filter(|cpu| *cpu != Cpu::new(0)).collect();
    if cpus.is_empty() {
        skip!("there is one CPU");
    }
    let (device, runs) = device(machine)?;
    for turn in 0..10 {
        let cpu = cpus[turn % cpus.len()];
        take_away(machine, cpu)?;
        let there = fire_all(&device, &runs, cpu)?;
        check!(there == 0, "{there} messages arrived at CPU {cpu}, which is off");
        smp::turn_on(machine, cpu)?;
        for (handle, cpu) in device.handles.iter().zip(machine.online_cpus().into_iter().cycle()) {
            machine.route(handle, cpu)?;
        }
        fire_all(&device, &runs, cpu)?;
    }
    device.tear_down()
}

/// Suspends and resumes the system without a loss of power.
fn sleep_and_wake(machine: &'static Machine) -> Outcome {
    let Some(its) = &machine.its else { skip!("no ITS") };
    let (gic, boot) = (machine.gic().gicv3()?, Cpu::new(0));
    let others: Vec<_> = machine.online_cpus().into_iter().filter(|cpu| *cpu != boot).collect();
    others.iter().try_for_each(|cpu| take_away(machine, *cpu))?;
    let (device, runs) = device(machine)?;
    let count = || runs[0].load(Ordering::Acquire);
    device.handles[0].disable();
    device.fire(0);
    let state = cpu::irq_save();
    its.suspend()?;
    let saved = gic.suspend(gic.suspend_room()?, boot, &registers())?;
    device.fire(1);
    gic.resume(&saved, &registers())?;
    its.resume()?;
    cpu::irq_restore(state);
    cpu::wait_until(5, || count() > 0);
    check!(
        count() == 0,
        "{} handlers ran for messages to a suspended ITS or a disabled vector",
        count()
    );
    device.handles[0].enable();
    cpu::wait_until(2000, || count() > 0);
    check!(count() == 1, "the handler of the pending message ran {} times", count());
    others.iter().try_for_each(|cpu| smp::turn_on(machine, *cpu))?;
    for handle in &device.handles {
        handle.set_affinity(machine.online_cpus().last().copied().unwrap_or(boot))?;
    }
    fire_all(&device, &runs, boot)?;
    device.tear_down()
}
