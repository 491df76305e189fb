//! One CPU: its interface to the model, and its trap loop.

use crate::oracle::{Clock, RouteTable};
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::{Executing, MachinePlatform};
use gic_arch::icc::SysRegEncoding;
use gic_driver::{CpuInterface, SystemRegisters};
use irq_domain::{Dispatched, Interrupts, Unhandled};
use msi_types::{Cpu, HwIrq};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use vgic::{Sleep, Vcpu};

/// The machine's ITS driver.
pub(crate) type Its = gic_driver::Its<MachinePlatform>;

thread_local! {
    /// The time at which this thread's CPU last looked for an interrupt.
    static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
}

/// Returns the time at which the CPU of the calling handler looked for its interrupt.
pub(crate) fn looked_at() -> u64 {
    LOOKED_AT.get()
}

/// Interrupts that found no handler.
#[derive(Debug, Default)]
pub(crate) struct UnhandledCounts {
    /// There never was one, or it had gone before the CPU looked.
    pub(crate) spurious: AtomicU64,
    /// It went while the interrupt was under way.
    pub(crate) late: AtomicU64,
    /// The times at which vectors lost their last handler.
    gone_at: Mutex<HashMap<u32, u64>>,
}

impl UnhandledCounts {
    /// Records that the vector is about to lose its handler.
    pub(crate) fn going(&self, hwirq: HwIrq) {
        lock(&self.gone_at).insert(hwirq.get(), u64::MAX);
    }

    /// Records that the vector has lost its handler, at this time.
    pub(crate) fn gone(&self, hwirq: HwIrq, now: u64) {
        lock(&self.gone_at).insert(hwirq.get(), now);
    }

    fn count(&self, hwirq: HwIrq, why: Unhandled) {
        let gone_at = lock(&self.gone_at).get(&hwirq.get()).copied();
        let under_way = gone_at.is_some_and(|gone_at| looked_at() < gone_at);
        let counter =
            if why == Unhandled::Released && under_way { &self.late } else { &self.spurious };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The records that CPUs write to.
#[derive(Clone)]
pub(crate) struct CpuRecords {
    pub(crate) clock: Arc<Clock>,
    pub(crate) unhandled: Arc<UnhandledCounts>,
    pub(crate) routes: Arc<RouteTable>,
}

impl CpuRecords {
    /// For `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        let clock = Arc::<Clock>::default();
        let routes = Arc::new(RouteTable::new(Arc::clone(&clock), cpus));
        Self { clock, unhandled: Arc::default(), routes }
    }
}

/// One CPU of the machine.
pub(crate) struct CpuCore {
    cpu: Cpu,
    vcpu: Mutex<Vcpu>,
    clock: Arc<Clock>,
    unhandled: Arc<UnhandledCounts>,
    routes: Arc<RouteTable>,
    /// Known once the drivers are up.
    interrupts: OnceLock<Interrupts>,
}

/// The system registers of a CPU.
#[derive(Debug)]
pub struct CpuRegisters<'a>(pub(crate) &'a Mutex<Vcpu>);

impl SystemRegisters for CpuRegisters<'_> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        // An undefined register is a trap in the driver's own code; it goes on with nonsense.
        lock(self.0).read_sysreg(register).unwrap_or(0)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let _ = lock(self.0).write_sysreg(register, value);
    }
}

impl CpuCore {
    pub(crate) fn new(cpu: Cpu, vcpu: Vcpu, records: &CpuRecords) -> Self {
        let CpuRecords { clock, unhandled, routes } = records.clone();
        Self { cpu, vcpu: Mutex::new(vcpu), clock, unhandled, routes, interrupts: OnceLock::new() }
    }

    /// Interrupts are dispatched by `interrupts` from now on.
    pub(crate) fn serve(&self, interrupts: &Interrupts) {
        // There is one interrupt core for each machine.
        let _ = self.interrupts.set(interrupts.clone());
    }

    /// The CPU executes `code`, with its interrupts masked.
    pub(crate) fn execute<R>(&self, code: impl FnOnce(Cpu, &CpuRegisters<'_>) -> R) -> R {
        let _executing = Executing::in_exception(self.cpu);
        code(self.cpu, &CpuRegisters(&self.vcpu))
    }

    /// The trap: acknowledges one interrupt, runs its handler, ends it. False if there was none.
    pub(crate) fn take_one(&self) -> bool {
        let Some(interrupts) = self.interrupts.get() else { return false };
        let _executing = Executing::in_exception(self.cpu);
        let looked_at = self.clock.now();
        // With all CPUs on one thread, the handler of another CPU may wait for this one.
        let others = LOOKED_AT.replace(looked_at);
        let took = self.take_one_of(interrupts, looked_at);
        LOOKED_AT.set(others);
        took
    }

    fn take_one_of(&self, interrupts: &Interrupts, looked_at: u64) -> bool {
        let interface: CpuInterface<_> = CpuInterface::new(CpuRegisters(&self.vcpu));
        let Some(acknowledged) = interface.acknowledge() else { return false };
        let hwirq = acknowledged.intid().hwirq();
        let route = self.routes.get(hwirq);
        if let Some(route) = &route {
            route.acknowledged(self.cpu, looked_at);
        }
        let outcome = interrupts.dispatch(self.cpu, hwirq);
        if let Some(route) = route {
            route.dispatched(outcome);
        }
        if let Dispatched::Unhandled(why) = outcome {
            self.unhandled.count(hwirq, why);
        }
        interface.end(acknowledged);
        true
    }

    /// Its half of the model, while it executes nothing.
    pub(crate) fn vcpu(&self) -> MutexGuard<'_, Vcpu> {
        lock(&self.vcpu)
    }

    /// May the CPU sleep? Then it is kicked once there is something to do, and says
    /// [`woken`](Self::woken).
    pub(crate) fn may_sleep(&self) -> bool {
        lock(&self.vcpu).prepare_to_sleep() == Sleep::Ready
    }

    /// Would the CPU sleep? If not, it did a piece of what the model left over, or has an
    /// interrupt.
    pub(crate) fn may_idle(&self) -> bool {
        let may_sleep = self.may_sleep();
        self.woken();
        may_sleep
    }

    pub(crate) fn woken(&self) {
        lock(&self.vcpu).returned();
    }
}
