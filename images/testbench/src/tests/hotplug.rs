//! A test of CPUs that are turned off by PSCI and on again.

use crate::machine::{Machine, NamedTest};
use crate::report::{Outcome, Verdict, check, skip};
use crate::smp::{self, PerCpu};
use crate::soft_device::SoftDevice;
use alloc::vec::Vec;
use image_rt::cpu;
use msi_types::Cpu;

const VECTORS: u16 = 8;

pub(super) const TESTS: &[NamedTest] =
    &[("a CPU leaves, its interrupts arrive elsewhere, and it comes back", leave_and_return)];

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
    let cpus: Vec<_> =
        machine.online_cpus().into_iter().filter(|cpu| *cpu != Cpu::new(0)).collect();
    if cpus.is_empty() {
        skip!("there is one CPU");
    }
    let (device, runs) = SoftDevice::counting(machine, VECTORS)?;
    let all_there = |cpu: Cpu| -> Outcome {
        device.handles.iter().try_for_each(|handle| machine.route(handle, cpu))?;
        let there = fire_all(&device, &runs, cpu)?;
        check!(there == u64::from(VECTORS), "{there} of {VECTORS} messages arrived at CPU {cpu}");
        Ok(())
    };
    for cpu in cpus.iter().copied().cycle().take(10) {
        all_there(cpu)?;
        take_away(machine, cpu)?;
        check!(!machine.gic().is_on(cpu), "the GIC driver still considers CPU {cpu} to be on");
        let moved = machine.route(&device.handles[0], cpu);
        check!(moved.is_err(), "a vector was moved to a CPU that is off");
        let there = fire_all(&device, &runs, cpu)?;
        check!(there == 0, "{there} messages arrived at CPU {cpu}, which is off");
        smp::turn_on(machine, cpu)?;
        all_there(cpu)?;
    }
    device.tear_down()
}
