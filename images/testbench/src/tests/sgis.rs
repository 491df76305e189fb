//! Tests of a CPU's private interrupts: SGIs from every CPU to every CPU, and a PPI.

use crate::controller::registers;
use crate::machine::{Machine, NamedTest};
use crate::report::{Outcome, check, skip};
use crate::smp::{self, PerCpu};
use alloc::sync::Arc;
use alloc::vec::Vec;
use gic_arch::{IntId, SgiId};
use image_rt::cpu;
use irq_domain::IrqContext;
use msi_types::{Cpu, HwIrq, Trigger};

const VIRTUAL_TIMER: HwIrq = IntId::ppi(11).expect("16 PPIs exist").hwirq();
/// SGIs that the tests use. SGI 15 wakes CPUs.
const TRIED: core::ops::Range<u8> = 0..8;

pub(super) const TESTS: &[NamedTest] = &[
    ("SGIs arrive from every CPU at every CPU", all_to_all),
    ("an SGI to all others arrives at all others", to_others),
    ("the virtual timer's PPI arrives on each CPU, and can be held back", timers),
    ("an SGI to several CPUs arrives at each", to_several),
];

/// Runs `use_it` with the SGI enabled on every CPU.
fn with_listeners(
    machine: &'static Machine,
    number: u8,
    use_it: impl FnOnce(&PerCpu, SgiId) -> Outcome,
) -> Outcome {
    let sgi = SgiId::new(number).expect("16 SGIs exist");
    let arrived = Arc::<PerCpu>::default();
    let counts = arrived.clone();
    let count = move |context: &IrqContext<'_>| counts.count(context.cpu());
    let vector = sgi.intid().hwirq();
    let handle = machine.interrupts.request_per_cpu(vector, Trigger::Edge, "sgi", count)?;
    let handle = Arc::new(handle);
    for cpu in machine.online_cpus() {
        let handle = handle.clone();
        smp::run_on(cpu, move || handle.enable_here())?;
    }
    let outcome = use_it(&arrived, sgi);
    for cpu in machine.online_cpus() {
        let handle = handle.clone();
        smp::run_on(cpu, move || handle.disable_here())?;
    }
    outcome
}

fn all_to_all(machine: &'static Machine) -> Outcome {
    for number in TRIED {
        with_listeners(machine, number, |arrived, sgi| {
            let cpus = machine.online_cpus();
            for from in &cpus {
                for to in cpus.iter().copied() {
                    let before = arrived.on(to);
                    smp::run_on(*from, move || {
                        let sent = machine.gic().send(sgi, &[to], &registers());
                        sent.expect("the target is reachable");
                    })?;
                    let there = cpu::wait_until(2000, || arrived.on(to) > before);
                    check!(there, "SGI {number} from CPU {from} did not arrive at CPU {to}");
                }
            }
            for to in &cpus {
                let (count, sent) = (arrived.on(*to), cpus.len() as u64);
                check!(count == sent, "CPU {to} received SGI {number} {count} times of {sent}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn to_others(machine: &'static Machine) -> Outcome {
    let others: Vec<Cpu> =
        machine.online_cpus().into_iter().filter(|cpu| *cpu != Cpu::new(0)).collect();
    if others.is_empty() {
        skip!("there is one CPU");
    }
    with_listeners(machine, 3, |arrived, sgi| {
        machine.gic().send_to_others(sgi, &registers());
        check_once_each(arrived, &others)?;
        check!(arrived.on(Cpu::new(0)) == 0, "the sender also received the SGI");
        Ok(())
    })
}

fn to_several(machine: &'static Machine) -> Outcome {
    let targets: Vec<Cpu> = machine.online_cpus().into_iter().step_by(2).collect();
    with_listeners(machine, 4, |arrived, sgi| {
        machine.gic().send(sgi, &targets, &registers())?;
        check_once_each(arrived, &targets)?;
        let all = arrived.all();
        check!(all == targets.len() as u64, "{all} SGIs arrived, but {} were sent", targets.len());
        Ok(())
    })
}

/// Tests the timer interrupt, which is private to each CPU.
fn timers(machine: &'static Machine) -> Outcome {
    let fired = Arc::<PerCpu>::default();
    let counts = fired.clone();
    let stop = move |context: &IrqContext<'_>| {
        cpu::stop_virtual_timer();
        counts.count(context.cpu());
    };
    let interrupts = &machine.interrupts;
    let handle = interrupts.request_per_cpu(VIRTUAL_TIMER, Trigger::Level, "timer", stop)?;
    let handle = Arc::new(handle);
    for cpu in machine.online_cpus() {
        let timer = handle.clone();
        smp::run_on(cpu, move || {
            timer.enable_here();
            cpu::start_virtual_timer();
        })?;
        let count = || fired.on(cpu);
        cpu::wait_until(500, || count() > 0);
        check!(count() == 1, "{} runs on CPU {cpu}", count());
        let timer = handle.clone();
        smp::run_on(cpu, move || {
            timer.disable_here();
            cpu::start_virtual_timer();
        })?;
        cpu::wait_until(5, || count() > 1);
        check!(count() == 1, "the handler ran on CPU {cpu} although the PPI was disabled there");
        smp::run_on(cpu, cpu::stop_virtual_timer)?;
    }
    Ok(())
}

fn check_once_each(arrived: &PerCpu, targets: &[Cpu]) -> Outcome {
    for cpu in targets {
        cpu::wait_until(2000, || arrived.on(*cpu) > 0);
        let count = arrived.on(*cpu);
        check!(count == 1, "CPU {cpu} received the SGI {count} times");
    }
    Ok(())
}
