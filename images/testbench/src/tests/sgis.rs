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

/// Runs `send` on a CPU, and checks that the SGI that it sends arrives once at each target, and
/// nowhere else.
fn arrives(
    machine: &Machine,
    arrived: &PerCpu,
    (from, targets): (Cpu, &[Cpu]),
    send: impl FnOnce() + Send + 'static,
) -> Outcome {
    let expected = |cpu: Cpu| (cpu, arrived.on(cpu) + u64::from(targets.contains(&cpu)));
    let expected: Vec<_> = machine.online_cpus().into_iter().map(expected).collect();
    smp::run_on(from, send)?;
    for (cpu, expected) in expected {
        cpu::wait_until(2000, || arrived.on(cpu) >= expected);
        let count = arrived.on(cpu);
        check!(count == expected, "from CPU {from}, CPU {cpu} received {count} of {expected} SGIs");
    }
    Ok(())
}

fn all_to_all(machine: &'static Machine) -> Outcome {
    for number in TRIED {
        with_listeners(machine, number, |arrived, sgi| {
            let cpus = machine.online_cpus();
            for (from, to) in cpus.iter().flat_map(|from| cpus.iter().map(|to| (*from, [*to]))) {
                arrives(machine, arrived, (from, &to), move || {
                    let sent = machine.gic().send(sgi, &to, &registers());
                    sent.expect("the target is reachable");
                })?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn to_others(machine: &'static Machine) -> Outcome {
    let cpus = machine.online_cpus();
    let [first, others @ ..] = &cpus[..] else { skip!("no CPU is online") };
    if others.is_empty() {
        skip!("there is one CPU");
    }
    with_listeners(machine, 3, |arrived, sgi| {
        let send = move || machine.gic().send_to_others(sgi, &registers());
        arrives(machine, arrived, (*first, others), send)
    })
}

fn to_several(machine: &'static Machine) -> Outcome {
    let targets: Vec<Cpu> = machine.online_cpus().into_iter().step_by(2).collect();
    with_listeners(machine, 4, |arrived, sgi| {
        let all = targets.clone();
        arrives(machine, arrived, (Cpu::new(0), &targets), move || {
            machine.gic().send(sgi, &all, &registers()).expect("the targets are reachable");
        })
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
