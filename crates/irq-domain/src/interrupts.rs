//! The core itself: dispatch, and what all its other operations share.

mod hotplug;
mod placement;
mod reclaim;
mod request;

use crate::affinity::AffinityPolicy;
#[cfg(doc)]
use crate::affinity::RoundRobin;
use crate::cpu_choice::CpuChoice;
use crate::cpu_lists::{Candidates, Hotplug};
use crate::deferred_free::DeferredFree;
use crate::descriptor::{Action, Descriptor};
use crate::dispatch_table::DispatchTable;
use crate::handler_cell::{Arrival, HandlerCell, History, Running};
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::irq::{Deferral, Dispatched, Flow, Irq, IrqContext, IrqReturn, Unhandled};
use crate::irq_info::{self, IrqInfo};
use crate::irq_numbers::IrqNumbers;
use crate::lock::{TaskLock, TaskRwLock};
use crate::root_controller::RootController;
use crate::runtime::Runtime;
use crate::shared::Shared;
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU16;
use msi_types::{Cpu, HwIrq, WiredParent};

pub use request::WiredRequest;

/// Configuration of an interrupt core.
pub struct Config {
    /// Number of CPUs that are or can come on line: [`Cpu`]s 0 to one less.
    pub cpus: NonZeroU16,
    /// The kernel.
    pub host: Arc<dyn Host>,
    /// The root controller's wired and private interrupts, if it has any for the core to hand out.
    /// Without it, requests for either are refused.
    pub wired: Option<Arc<dyn WiredParent>>,
    /// The choice of CPUs: [`RoundRobin`] without it.
    pub policy: Option<Box<dyn AffinityPolicy>>,
}

impl Config {
    /// No wired interrupts, [`RoundRobin`] placement.
    pub fn new(cpus: NonZeroU16, host: Arc<dyn Host>) -> Self {
        Self { cpus, host, wired: None, policy: None }
    }

    /// With the root controller's wired interrupts.
    pub fn with_wired(self, wired: Arc<dyn WiredParent>) -> Self {
        Self { wired: Some(wired), ..self }
    }

    /// With another placement policy.
    pub fn with_policy(self, policy: Box<dyn AffinityPolicy>) -> Self {
        Self { policy: Some(policy), ..self }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

/// The interrupt core of one machine.
///
/// Interrupts have a name of their own here, an [`Irq`]; a [`HwIrq`] by which the root controller
/// acknowledges them; and, while somebody handles them, a handler. Handlers are requested for wired
/// interrupts ([`request_wired`](Self::request_wired)), private ones
/// ([`request_per_cpu`](Self::request_per_cpu)) and a device's message-signalled ones
/// ([`MsiDevice`](crate::MsiDevice)); the handle that a request returns owns the handler.
///
/// **Disabling is eager**: it masks at the source, so dispatch never touches hardware and a
/// disabled source cannot storm. What was under way when it was masked is remembered, and sent
/// again when it is enabled.
pub struct Interrupts {
    pub(crate) table: DispatchTable,
    pub(crate) runtime: Runtime,
    pub(crate) numbers: TaskLock<IrqNumbers>,
    /// Read: CPUs are being chosen for new interrupts. Write: a CPU comes or goes.
    pub(crate) hotplug: TaskRwLock<Hotplug>,
    root: RootController,
    pub(crate) choice: CpuChoice,
    deferred: DeferredFree<Deferred>,
}

/// Something that a handle owns and its drop tears down.
pub(crate) trait Teardown: Send + Sync {
    /// Task.
    fn tear_down(&self, core: &Interrupts);
}

/// Something that is still to be freed.
enum Deferred {
    /// A handle's interrupt.
    Handle(Shared<Descriptor>, HandlerState),
    /// A device's domain, or its attachment.
    Owner(Shared<dyn Teardown>),
}

impl Deferred {
    const fn is_handle(&self) -> bool {
        matches!(self, Self::Handle(..))
    }
}

/// State of a dropped handle's handler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandlerState {
    /// It is closed, and may still run.
    Closed,
    /// Nothing: it went with its device.
    Gone,
}

/// A handler's run. However it ends, by return or by unwinding, what arrived meanwhile is sent
/// again.
struct Run<'a> {
    core: &'a Interrupts,
    running: Option<Running<'a, Action>>,
}

impl Run<'_> {
    #[inline]
    fn leave(&mut self) {
        if let Some(pinned) = self.running.take().and_then(Running::leave) {
            pinned.descriptor.redeliver(&self.core.runtime);
        }
    }
}

impl Drop for Run<'_> {
    #[cold]
    fn drop(&mut self) {
        self.leave();
    }
}

impl Interrupts {
    /// An interrupt core without interrupts. CPU 0, the boot CPU, is on line; the others are not.
    /// The kernel puts it into an [`Arc`], which handles and devices share, and keeps it as long as
    /// its CPUs take interrupts: the last reference is dropped by a task. Task.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn new(config: Config) -> Result<Self, TryReserveError> {
        let cpus = config.cpus.get();
        Ok(Self {
            table: DispatchTable::new()?,
            runtime: Runtime::try_new(config.host, cpus)?,
            numbers: TaskLock::new(IrqNumbers::default()),
            hotplug: TaskRwLock::new(Hotplug::try_new(cpus.into())?),
            root: RootController::new(config.wired),
            choice: CpuChoice::new(config.policy),
            deferred: DeferredFree::new(),
        })
    }

    /// Runs the handler of `hwirq`, which `cpu` has acknowledged. Hard IRQ: takes no lock,
    /// allocates nothing, and touches no hardware, except to send an interrupt again that arrived
    /// while its handler ran elsewhere, and to shut off one that [screams](Host::screaming).
    ///
    /// The caller is the trap loop of `cpu`, and ends the interrupt on the CPU interface itself,
    /// whatever the answer:
    /// - EOImode 0: read IAR, dispatch, write EOIR. Interrupts of the same and lower priority wait
    ///   for the handler.
    /// - EOImode 1: read IAR, write EOIR (priority drop), dispatch, write DIR (deactivation; LPIs
    ///   have no active state and take none). Interrupts can nest; the same message that arrives
    ///   again below its own handler is [deferred](Deferral::Running), not nested.
    ///
    /// The special INTIDs (1020 to 1023) are not vectors: the trap loop does not pass them on.
    #[inline]
    pub fn dispatch(&self, cpu: Cpu, hwirq: HwIrq) -> Dispatched {
        if cpu.index() >= self.cpus() {
            return Dispatched::Unhandled(Unhandled::UnknownCpu);
        }
        let Some(entry) = self.table.get(hwirq) else {
            return Dispatched::Unhandled(Unhandled::Unknown);
        };
        let absent = match self.arrive(&entry.shared, cpu) {
            Ok(done) => return done,
            Err(absent) => absent,
        };
        let private = entry.private(cpu).map(|cell| self.arrive(cell, cpu));
        private.unwrap_or(Err(absent)).unwrap_or_else(|absent| {
            Dispatched::Unhandled(match absent {
                History::Used => Unhandled::Released,
                History::Unused => Unhandled::Unknown,
            })
        })
    }

    /// # Errors
    /// There is no handler.
    #[inline]
    fn arrive(&self, cell: &HandlerCell<Action>, cpu: Cpu) -> Result<Dispatched, History> {
        match cell.enter() {
            Arrival::Entered(running) => Ok(self.run(running, cpu)),
            Arrival::Busy => Ok(Dispatched::Deferred(Deferral::Running)),
            Arrival::Disabled => Ok(Dispatched::Deferred(Deferral::Disabled)),
            Arrival::Absent(history) => Err(history),
        }
    }

    #[inline]
    fn run(&self, running: Running<'_, Action>, cpu: Cpu) -> Dispatched {
        let mut run = Run { core: self, running: Some(running) };
        let Some(Action { handler, descriptor }) = run.running.as_deref() else {
            return Dispatched::Handled;
        };
        descriptor.counts.count(cpu);
        let Descriptor { irq, hwirq, .. } = **descriptor;
        let done = match handler(&IrqContext { irq, hwirq, cpu, run: PhantomData }) {
            IrqReturn::Handled => Dispatched::Handled,
            IrqReturn::None => {
                self.unhandled(descriptor);
                Dispatched::Unhandled(Unhandled::IrqNone)
            }
        };
        run.leave();
        core::mem::forget(run);
        done
    }

    /// Shuts the interrupt off if its handler finds nothing to do all the time. Hard IRQ, once in a
    /// window with a lock.
    #[cold]
    fn unhandled(&self, descriptor: &Descriptor) {
        let screams =
            descriptor.unhandled.count(&descriptor.counts) && descriptor.flow != Flow::PerCpu;
        let interrupt = self.interrupt(descriptor);
        if screams && interrupt.while_installed(|control| interrupt.disable(control)).is_some() {
            self.host().screaming(descriptor.irq);
        }
    }

    /// All interrupts, by ascending number. A momentary view: the counters go on meanwhile. Task.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn snapshot(&self) -> Result<Vec<IrqInfo>, TryReserveError> {
        let mut all = Vec::new();
        for descriptor in self.each() {
            all.try_reserve(1)?;
            all.push(IrqInfo::of(self.interrupt(&descriptor))?);
        }
        Ok(all)
    }

    /// One interrupt; `None` if it does not exist. Task.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn irq_info(&self, irq: Irq) -> Result<Option<IrqInfo>, TryReserveError> {
        self.find(irq).map(|descriptor| IrqInfo::of(self.interrupt(&descriptor))).transpose()
    }

    /// Writes the hierarchy of an interrupt for people, one level per line, the device first and
    /// the root last: what Linux shows in debugfs. Allocates nothing. Task.
    pub fn describe(&self, irq: Irq, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.find(irq) {
            Some(descriptor) => irq_info::describe(self.interrupt(&descriptor), out),
            None => writeln!(out, "irq {irq}: does not exist"),
        }
    }

    /// Number of redeliveries of all interrupts. Any.
    pub fn redelivered(&self) -> u64 {
        self.runtime.redelivered()
    }

    /// Number of CPUs that the core was made for. Any.
    pub fn cpus(&self) -> usize {
        self.runtime.cpus()
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.runtime.host()
    }

    /// An existing interrupt with its entry of the table.
    pub(crate) fn interrupt<'a>(&'a self, descriptor: &'a Descriptor) -> Interrupt<'a> {
        let entry = self.table.get(descriptor.hwirq);
        let entry = entry.expect("the entry was made before the descriptor");
        Interrupt { descriptor, entry, runtime: &self.runtime }
    }

    /// Those of `among` that are on line, the one with the fewest managed interrupts first.
    pub(crate) fn least_managed<'a>(
        &self,
        among: &[Cpu],
        online: &[Cpu],
        candidates: &'a mut Candidates,
    ) -> &'a [Cpu] {
        let numbers = self.numbers.lock(self.host());
        candidates.least_managed(among, online, numbers.managed_targets())
    }

    fn find(&self, irq: Irq) -> Option<Shared<Descriptor>> {
        self.numbers.lock(self.host()).get(irq)
    }

    /// The interrupts by ascending number, one at a time: others come and go meanwhile. Allocates
    /// nothing.
    fn each(&self) -> impl Iterator<Item = Shared<Descriptor>> {
        let mut next = Irq::new(0);
        core::iter::from_fn(move || {
            let found = self.numbers.lock(self.host()).first_from(next)?;
            next = Irq::new(found.irq.get().saturating_add(1));
            Some(found)
        })
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts").field("cpus", &self.cpus()).finish_non_exhaustive()
    }
}
