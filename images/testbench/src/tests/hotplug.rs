//! Tests of a CPU that is turned off by PSCI and on again, and of a GIC that is suspended.

use crate::controller::{gicv3, registers};
use crate::machine::{Machine, NamedTest};
use crate::report::{Outcome, Verdict, check, skip};
use crate::smp::{self, PerCpu};
use crate::soft_device::SoftDevice;
use alloc::vec::Vec;
use image_rt::cpu;
use msi_types::Cpu;

const VECTORS: u16 = 8;

pub(super) const TESTS: &[NamedTest] = &[
    ("a CPU leaves, its interrupts arrive elsewhere, and it comes back", leave_and_return),
    ("CPUs leave and return many times", many_times),
    ("the GIC and the ITS sleep and wake, and keep what is pending", sleep_and_wake),
];

/// Makes the device send a message of every vector. Returns the number of handler runs on `cpu`.
fn fire_all(device: &SoftDevice, runs: &PerCpu, cpu: Cpu) -> Result<u64, Verdict> {
    let (before, there) = (runs.all(), runs.on(cpu));
    for slot in 0..VECTORS {
        device.fire(slot);
    }
    cpu::wait_until(2000, || runs.all() == before + u64::from(VECTORS));
    let arrived = runs.all() - before;
    check!(arrived == u64::from(VECTORS), "{arrived} of {VECTORS} messages arrived");
    Ok(runs.on(cpu) - there)
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
    let (device, runs) = SoftDevice::counting(machine, VECTORS)?;
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
    let (device, runs) = SoftDevice::counting(machine, VECTORS)?;
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
    let (gic, boot) = (gicv3(machine.gic())?, Cpu::new(0));
    let others: Vec<_> = machine.online_cpus().into_iter().filter(|cpu| *cpu != boot).collect();
    others.iter().try_for_each(|cpu| take_away(machine, *cpu))?;
    let (device, runs) = SoftDevice::counting(machine, VECTORS)?;
    let count = || runs.on(boot);
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
