//! A single CPU: its GIC CPU interface and its trap loop.

use crate::ledger::{Clock, RouteTable};
use crate::trace::{Occurrence, Recorder};
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::Executing;
use gic_arch::icc::SysRegEncoding;
use gic_driver::{CpuInterface, SystemRegisters};
use irq_domain::{Dispatched, Interrupts, Unhandled};
use msi_types::trace::{Event, Observer as _};
use msi_types::{Cpu, HwIrq};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use vgic::{Sleep, Vcpu};

thread_local! {
    /// The time at which the CPU on this thread last looked for an interrupt.
    static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
}

/// Returns the time at which the CPU that runs the calling handler looked for interrupts.
pub(crate) fn looked_at() -> u64 {
    LOOKED_AT.get()
}

/// Counts of interrupts for which no handler was found.
#[derive(Debug, Default)]
pub(crate) struct UnhandledCounts {
    /// Interrupts whose vector had no handler when the CPU looked for interrupts.
    pub(crate) spurious: AtomicU64,
    /// Interrupts whose vector lost its handler while they were in flight.
    pub(crate) late: AtomicU64,
    /// The time at which each vector last lost its handler.
    gone_at: Mutex<HashMap<u32, u64>>,
}

impl UnhandledCounts {
    /// Records that the vector is about to lose its handler.
    pub(crate) fn going(&self, hwirq: HwIrq) {
        lock(&self.gone_at).insert(hwirq.get(), u64::MAX);
    }

    /// Records that the vector lost its handler at `now`.
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

/// Records shared by all CPUs.
#[derive(Clone)]
pub(crate) struct CpuRecords {
    pub(crate) clock: Arc<Clock>,
    pub(crate) unhandled: Arc<UnhandledCounts>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// Whether latencies are measured. A simulation does not measure them, because its times differ
    /// from those of a real machine.
    pub(crate) timing: Timing,
}

/// Whether a run measures latencies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timing {
    Measured,
    Ignored,
}

impl CpuRecords {
    /// Creates empty records for a machine with `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        let clock = Arc::<Clock>::default();
        let routes = Arc::new(RouteTable::new(Arc::clone(&clock), cpus));
        Self { clock, unhandled: Arc::default(), routes, recorder: None, timing: Timing::Ignored }
    }
}

impl CpuRecords {
    /// Records an occurrence, if the run has a recorder.
    pub(crate) fn note(&self, what: Occurrence) {
        self.recorder.iter().for_each(|recorder| recorder.record_of(None, what));
    }
}

/// One CPU of the machine.
pub(crate) struct CpuCore {
    cpu: Cpu,
    vcpu: Mutex<Vcpu>,
    clock: Arc<Clock>,
    unhandled: Arc<UnhandledCounts>,
    routes: Arc<RouteTable>,
    recorder: Option<Arc<Recorder>>,
    /// Set once the drivers are up.
    interrupts: OnceLock<Interrupts>,
}

/// A CPU's system registers.
#[derive(Debug)]
pub struct CpuRegisters<'a>(pub(crate) &'a Mutex<Vcpu>);

impl SystemRegisters for CpuRegisters<'_> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        // On hardware, accessing an undefined register would cause a trap in the driver's code. In
        // this simulation, the driver reads zero instead.
        lock(self.0).read_sysreg(register).unwrap_or(0)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let _ = lock(self.0).write_sysreg(register, value);
    }
}

impl CpuCore {
    pub(crate) fn new(cpu: Cpu, vcpu: Vcpu, records: &CpuRecords) -> Self {
        let CpuRecords { clock, unhandled, routes, recorder, .. } = records.clone();
        let (vcpu, interrupts) = (Mutex::new(vcpu), OnceLock::new());
        Self { cpu, vcpu, clock, unhandled, routes, recorder, interrupts }
    }

    /// Makes this CPU dispatch its interrupts through `interrupts` from now on.
    pub(crate) fn serve(&self, interrupts: &Interrupts) {
        // A machine has only one interrupt core, so this cell is set only once.
        let _ = self.interrupts.set(interrupts.clone());
    }

    /// Executes `code` on this CPU with interrupts masked.
    pub(crate) fn execute<R>(&self, code: impl FnOnce(Cpu, &CpuRegisters<'_>) -> R) -> R {
        let _executing = Executing::in_exception(self.cpu);
        code(self.cpu, &CpuRegisters(&self.vcpu))
    }

    /// Takes one interrupt trap: acknowledges the interrupt, runs its handler and signals EOI.
    /// Returns `false` if no interrupt was pending.
    pub(crate) fn take_one(&self) -> bool {
        let Some(interrupts) = self.interrupts.get() else { return false };
        let _executing = Executing::in_exception(self.cpu);
        let looked_at = self.clock.now();
        // If all CPUs share one thread, a handler of another CPU may be in progress below this call
        // on the stack.
        let others = LOOKED_AT.replace(looked_at);
        let took = self.take_one_of(interrupts, looked_at);
        LOOKED_AT.set(others);
        took
    }

    fn take_one_of(&self, interrupts: &Interrupts, looked_at: u64) -> bool {
        let interface: CpuInterface<_> = CpuInterface::new(CpuRegisters(&self.vcpu));
        let looks = self.routes.looks();
        looks.begin(self.cpu, looked_at);
        let Some(acknowledged) = interface.acknowledge() else {
            looks.end(self.cpu, false);
            return false;
        };
        let hwirq = acknowledged.intid().hwirq();
        self.observe(Event::Taken { cpu: self.cpu, hwirq });
        let dispatches = self.routes.dispatches(hwirq);
        dispatches.begin(self.cpu, looked_at);
        looks.end(self.cpu, false);
        let outcome = interrupts.dispatch(self.cpu, hwirq);
        dispatches.end(self.cpu, matches!(outcome, Dispatched::Deferred(_)));
        if let Dispatched::Unhandled(why) = outcome {
            self.unhandled.count(hwirq, why);
        }
        interface.end(acknowledged);
        self.observe(Event::Ended { cpu: self.cpu, hwirq });
        true
    }

    fn observe(&self, event: Event) {
        self.recorder.iter().for_each(|recorder| recorder.observe(event));
    }

    fn record(&self, what: Occurrence) {
        self.recorder.iter().for_each(|recorder| recorder.record_of(None, what));
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Locks this CPU's vCPU in the model. The CPU must not be executing code.
    pub(crate) fn vcpu(&self) -> MutexGuard<'_, Vcpu> {
        lock(&self.vcpu)
    }

    /// Returns `true` if the CPU may sleep. If the CPU sleeps, the model kicks it when there is
    /// work to do, and the CPU must call [`woken`](Self::woken) after waking up.
    pub(crate) fn may_sleep(&self) -> bool {
        let may_sleep = lock(&self.vcpu).prepare_to_sleep() == Sleep::Ready;
        if may_sleep {
            self.record(Occurrence::Slept { cpu: self.cpu });
        }
        may_sleep
    }

    /// Returns `true` if the CPU has nothing to do. Otherwise, the CPU has an interrupt pending or
    /// has just performed part of the model's deferred work.
    pub(crate) fn may_idle(&self) -> bool {
        let may_sleep = self.may_sleep();
        self.woken();
        may_sleep
    }

    pub(crate) fn woken(&self) {
        lock(&self.vcpu).returned();
        self.record(Occurrence::Woke { cpu: self.cpu });
    }
}
