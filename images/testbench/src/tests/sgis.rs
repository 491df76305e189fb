//! Tests of a CPU's private interrupts: SGIs from every CPU to every CPU, and a PPI.

use crate::controller::registers;
use crate::machine::Machine;
use crate::report::{Outcome, Report, check, skip};
use crate::smp;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_arch::{IntId, SgiId};
use image_rt::cpu::{self, MAX_CPUS};
use msi_types::{Cpu, HwIrq, Trigger};

const VIRTUAL_TIMER: HwIrq = IntId::ppi(11).expect("16 PPIs exist").hwirq();
/// SGIs that the tests use. SGI 15 wakes CPUs.
const TRIED: core::ops::Range<u8> = 0..8;

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    report.case("SGIs arrive from every CPU at every CPU", || all_to_all(machine));
    report.case("an SGI to all others arrives at all others", || to_others(machine));
    report.case("the virtual timer's PPI arrives on each CPU, and can be held back", || {
        timers(machine)
    });
    report.case("an SGI to several CPUs arrives at each", || to_several(machine));
}

type Arrived = Arc<[AtomicU64; MAX_CPUS]>;

fn listen(
    machine: &'static Machine,
    number: u8,
) -> Result<(Arrived, irq_domain::PerCpuHandle, SgiId), crate::report::Verdict> {
    let sgi = SgiId::new(number).expect("16 SGIs exist");
    let arrived: Arrived = Arc::new([const { AtomicU64::new(0) }; MAX_CPUS]);
    let counts = arrived.clone();
    let handle = machine.interrupts.request_per_cpu(
        sgi.intid().hwirq(),
        Trigger::Edge,
        "sgi",
        move |context| {
            counts[context.cpu().index()].fetch_add(1, Ordering::Release);
        },
    )?;
    Ok((arrived, handle, sgi))
}

/// Runs `use_it` with the SGI enabled on every CPU.
fn with_listeners(
    machine: &'static Machine,
    number: u8,
    use_it: impl FnOnce(&Arrived, SgiId) -> Outcome,
) -> Outcome {
    let (arrived, handle, sgi) = listen(machine, number)?;
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
            for from in machine.online_cpus() {
                for to in machine.online_cpus() {
                    let before = arrived[to.index()].load(Ordering::Acquire);
                    smp::run_on(from, move || {
                        machine
                            .gic()
                            .send(sgi, &[to], &registers())
                            .expect("the target is reachable");
                    })?;
                    let there = cpu::wait_until(2000, || {
                        arrived[to.index()].load(Ordering::Acquire) > before
                    });
                    check!(there, "SGI {number} from CPU {from} did not arrive at CPU {to}");
                }
            }
            let each = machine.online_cpus().len() as u64;
            for to in machine.online_cpus() {
                let count = arrived[to.index()].load(Ordering::Acquire);
                check!(
                    count == each,
                    "CPU {to} received SGI {number} {count} times, but {each} were sent"
                );
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
        check!(arrived[0].load(Ordering::Acquire) == 0, "the sender also received the SGI");
        Ok(())
    })
}

fn to_several(machine: &'static Machine) -> Outcome {
    let targets: Vec<Cpu> = machine.online_cpus().into_iter().step_by(2).collect();
    with_listeners(machine, 4, |arrived, sgi| {
        machine.gic().send(sgi, &targets, &registers())?;
        check_once_each(arrived, &targets)?;
        let all: u64 = arrived.iter().map(|count| count.load(Ordering::Acquire)).sum();
        check!(all == targets.len() as u64, "{all} SGIs arrived, but {} were sent", targets.len());
        Ok(())
    })
}

/// Tests the timer interrupt, which is private to each CPU.
fn timers(machine: &'static Machine) -> Outcome {
    let fired: Arrived = Arc::new([const { AtomicU64::new(0) }; MAX_CPUS]);
    let counts = fired.clone();
    let handle = machine.interrupts.request_per_cpu(
        VIRTUAL_TIMER,
        Trigger::Level,
        "timer",
        move |context| {
            cpu::stop_virtual_timer();
            counts[context.cpu().index()].fetch_add(1, Ordering::Release);
        },
    )?;
    let handle = Arc::new(handle);
    for cpu in machine.online_cpus() {
        let timer = handle.clone();
        smp::run_on(cpu, move || {
            timer.enable_here();
            cpu::start_virtual_timer();
        })?;
        let count = || fired[cpu.index()].load(Ordering::Acquire);
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

fn check_once_each(arrived: &Arrived, targets: &[Cpu]) -> Outcome {
    for cpu in targets {
        cpu::wait_until(2000, || arrived[cpu.index()].load(Ordering::Acquire) > 0);
        let count = arrived[cpu.index()].load(Ordering::Acquire);
        check!(count == 1, "CPU {cpu} received the SGI {count} times");
    }
    Ok(())
}
