//! Turns secondary CPUs on and off, and runs test closures on them.

use crate::controller::registers;
use crate::machine::{Machine, machine};
use crate::report::Verdict;
use alloc::boxed::Box;
use alloc::format;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_arch::SgiId;
use gic_driver::GicPlatform;
use image_rt::cpu::{self, MAX_CPUS};
use image_rt::lock::IrqMutex;
use image_rt::platform::Kernel;
use image_rt::power::{self, CpuStack};
use irq_domain::PerCpuHandle;
use msi_types::{Cpu, Trigger};
use spin::Once;

/// Number of events on each CPU.
#[derive(Debug, Default)]
pub(crate) struct PerCpu([AtomicU64; MAX_CPUS]);

impl PerCpu {
    /// Counts an event.
    pub(crate) fn count(&self, cpu: Cpu) {
        self.0[cpu.index()].fetch_add(1, Ordering::Release);
    }

    /// Returns the number of events on a CPU.
    pub(crate) fn on(&self, cpu: Cpu) -> u64 {
        self.0[cpu.index()].load(Ordering::Acquire)
    }

    /// Returns the number of events on the other CPUs.
    pub(crate) fn elsewhere(&self, cpu: Cpu) -> u64 {
        let others = self.0.iter().enumerate().filter(|(index, _)| *index != cpu.index());
        others.map(|(_, count)| count.load(Ordering::Acquire)).sum()
    }

    /// Returns the number of events on all CPUs.
    pub(crate) fn all(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Next closure of each CPU.
static WORK: [IrqMutex<Option<Work>>; MAX_CPUS] = [const { IrqMutex::new(None) }; MAX_CPUS];
/// Number of closures that each CPU has completed.
static DONE: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static GIVEN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static STACKS: [Once<CpuStack>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
static KICK: Once<PerCpuHandle> = Once::new();

/// Returns the SGI that wakes a CPU.
fn kick() -> SgiId {
    SgiId::new(15).expect("16 SGIs exist")
}

/// Starts a CPU that is off, and waits until it takes interrupts.
pub(crate) fn turn_on(machine: &Machine, cpu: Cpu) -> Result<(), Verdict> {
    KICK.call_once(|| {
        let vector = kick().intid().hwirq();
        machine
            .interrupts
            .request_per_cpu(vector, Trigger::Edge, "kick", |_| ())
            .expect("SGI 15 could not be requested")
    });
    let affinity = machine.affinity(cpu).ok_or_else(|| failed("the CPU does not exist"))?;
    let stack = *STACKS[cpu.index()].call_once(CpuStack::new);
    let before = DONE[cpu.index()].load(Ordering::Acquire);
    GIVEN[cpu.index()].fetch_add(1, Ordering::Relaxed);
    power::cpu_on(cpu.index(), affinity.mpidr(), stack, run)
        .map_err(|error| failed(&format!("CPU_ON of {cpu}: {error:?}")))?;
    let ready = cpu::wait_until(5000, || DONE[cpu.index()].load(Ordering::Acquire) > before);
    if ready { Ok(()) } else { Err(failed(&format!("CPU {cpu} did not come up"))) }
}

/// Makes a CPU run a closure, without waiting for it. The boot CPU runs it immediately.
pub(crate) fn start_on(cpu: Cpu, work: impl FnOnce() + Send + 'static) {
    if cpu == Kernel.cpu() {
        return work();
    }
    let slot = &WORK[cpu.index()];
    cpu::wait_until(10_000, || slot.with(|slot| slot.is_none()));
    GIVEN[cpu.index()].fetch_add(1, Ordering::Relaxed);
    slot.with(|slot| *slot = Some(Box::new(work)));
    wake(cpu);
}

/// Waits until a CPU has completed all its closures.
pub(crate) fn wait_for(cpu: Cpu) -> Result<(), Verdict> {
    let index = cpu.index();
    if cpu == Kernel.cpu() {
        return Ok(());
    }
    let done = || DONE[index].load(Ordering::Acquire) == GIVEN[index].load(Ordering::Relaxed);
    if cpu::wait_until(30_000, done) { Ok(()) } else { Err(failed(&format!("CPU {cpu} hangs"))) }
}

/// Runs a closure on a CPU, and waits for it.
pub(crate) fn run_on(cpu: Cpu, work: impl FnOnce() + Send + 'static) -> Result<(), Verdict> {
    start_on(cpu, work);
    wait_for(cpu)
}

/// Waits until a CPU has handled all interrupts that are pending there.
pub(crate) fn catch_up(cpu: Cpu) -> Result<(), Verdict> {
    // By the time the CPU runs the closure, it has handled all pending interrupts.
    run_on(cpu, || ())
}

/// Turns a CPU off. The CPU's interrupts must have been moved to other CPUs.
pub(crate) fn turn_off(machine: &'static Machine, cpu: Cpu) -> Result<(), Verdict> {
    let affinity = machine.affinity(cpu).ok_or_else(|| failed("the CPU does not exist"))?;
    start_on(cpu, move || {
        cpu::irq_save();
        machine
            .irqchip
            .cpu_dying(cpu, &registers())
            .expect("the CPU's interface could not be turned off");
        DONE[cpu.index()].fetch_add(1, Ordering::Release);
        power::cpu_off();
    });
    let off = cpu::wait_until(5000, || power::is_off(affinity.mpidr()));
    if off { Ok(()) } else { Err(failed(&format!("CPU {cpu} did not go off"))) }
}

/// Turns a CPU off, whose GIC interface and redistributor stay enabled, and keep their interrupts.
pub(crate) fn leave(machine: &Machine, cpu: Cpu) -> Result<(), Verdict> {
    let affinity = machine.affinity(cpu).ok_or_else(|| failed("the CPU does not exist"))?;
    start_on(cpu, || {
        cpu::irq_save();
        power::cpu_off();
    });
    let off = cpu::wait_until(5000, || power::is_off(affinity.mpidr()));
    if off { Ok(()) } else { Err(failed(&format!("CPU {cpu} did not go off"))) }
}

fn wake(cpu: Cpu) {
    let machine = machine();
    // We can't wake a CPU that is off.
    let _ = machine.gic().send(kick(), &[cpu], &registers());
}

/// Main loop of secondary CPUs.
fn run() {
    let machine = machine();
    let here = Kernel.cpu();
    machine.irqchip.cpu_on(here, &registers(), |_| ()).expect("this CPU could not be turned on");
    if let Some(handle) = KICK.get() {
        handle.enable_here();
    }
    DONE[here.index()].fetch_add(1, Ordering::Release);
    loop {
        let state = cpu::irq_save();
        let work = WORK[here.index()].with(Option::take);
        if let Some(work) = work {
            cpu::irq_enable();
            work();
            DONE[here.index()].fetch_add(1, Ordering::Release);
        } else {
            cpu::wait_for_interrupt();
        }
        cpu::irq_restore(state);
        cpu::irq_enable();
    }
}

fn failed(why: &str) -> Verdict {
    Verdict::Failed(why.into())
}
