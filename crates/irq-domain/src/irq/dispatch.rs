//! Lock-free dispatch of an acknowledged hwirq to its handler.

use crate::irq::control::Control;
use crate::irq::descriptor::{Action, Descriptor};
use crate::irq::dispatch_table::{DispatchTable, HwIrqEntry};
use crate::irq::handler::{Deferral, Dispatch, Dispatched, Flow, IrqContext, IrqReturn, Unhandled};
use crate::irq::handler_cell::{HandlerCell, History, NotEntered, Pinned, Running};
use crate::irq::manage::IrqRef;
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use msi_types::{Cpu, HwIrq};

/// The dispatch table, and state that running handlers need.
pub(crate) struct Dispatcher {
    table: DispatchTable,
    pub(crate) runtime: Runtime,
}

/// A running handler. If the interrupt arrives again during the run, it is resent at the end,
/// whether the handler returns or unwinds.
struct Run<'a> {
    runtime: &'a Runtime,
    running: Option<Running<'a, Action>>,
}

impl Run<'_> {
    #[inline]
    fn leave(&mut self) {
        if let Some(pinned) = self.running.take().and_then(Running::leave) {
            redeliver(self.runtime, pinned);
        }
    }
}

impl Drop for Run<'_> {
    #[cold]
    fn drop(&mut self) {
        self.leave();
    }
}

impl Dispatch for Dispatcher {
    fn dispatch_chained(&self, cpu: Cpu, hwirq: HwIrq) -> Dispatched {
        self.dispatch_on(cpu, hwirq)
    }
}

impl Dispatcher {
    /// Creates a dispatcher with no handlers and all CPUs offline.
    pub(crate) fn try_new(host: Arc<dyn Host>, cpus: u16) -> Result<Self, TryReserveError> {
        Ok(Self { table: DispatchTable::new()?, runtime: Runtime::try_new(host, cpus)? })
    }

    /// Runs the handler of an acknowledged vector.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub(crate) fn dispatch(&self, cpu: Cpu, hwirq: HwIrq) -> Dispatched {
        if cpu.index() >= self.runtime.cpus() {
            return Dispatched::Unhandled(Unhandled::UnknownCpu);
        }
        self.dispatch_on(cpu, hwirq)
    }

    /// Dispatches like [`dispatch`](Self::dispatch), but does not check the CPU's number.
    #[inline]
    fn dispatch_on(&self, cpu: Cpu, hwirq: HwIrq) -> Dispatched {
        let Some(entry) = self.table.get(hwirq) else {
            return Dispatched::Unhandled(Unhandled::Unknown);
        };
        match entry.shared.enter() {
            Ok(running) => self.run(running, cpu),
            Err(NotEntered::Absent(history)) => self.dispatch_private(entry, cpu, history),
            Err(reason) => reason.into(),
        }
    }

    /// Runs the handler that is private to the CPU. `history` is that of the vector's shared
    /// cell.
    #[inline(never)]
    fn dispatch_private(&self, entry: &HwIrqEntry, cpu: Cpu, history: History) -> Dispatched {
        match entry.private(cpu).map_or(Err(NotEntered::Absent(history)), HandlerCell::enter) {
            Ok(running) => self.run(running, cpu),
            Err(reason) => reason.into(),
        }
    }

    /// Returns `true` if the vector has an enabled private handler on this CPU.
    ///
    /// Context: any.
    pub(crate) fn is_enabled_on(&self, cpu: Cpu, hwirq: HwIrq) -> bool {
        let cell = self.table.get(hwirq).and_then(|entry| entry.private(cpu));
        cell.is_some_and(HandlerCell::is_enabled)
    }

    #[inline]
    fn run(&self, running: Running<'_, Action>, cpu: Cpu) -> Dispatched {
        let mut run = Run { runtime: &self.runtime, running: Some(running) };
        let Some(Action { handler, descriptor }) = run.running.as_deref() else {
            return Dispatched::Handled;
        };
        // Take both references before the store to the count; otherwise, they are loaded again.
        let (run_handler, descriptor) = (handler.function(), &**descriptor);
        descriptor.counts.count(cpu);
        let Descriptor { irq, hwirq, .. } = *descriptor;
        let done = match run_handler(&IrqContext { irq, hwirq, cpu, dispatcher: self }) {
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

    /// Shuts the interrupt off if almost all runs of its handler find nothing to do. Takes a lock
    /// only once per window of runs.
    ///
    /// Context: hard IRQ.
    #[cold]
    fn unhandled(&self, descriptor: &Descriptor) {
        let is_spurious =
            descriptor.unhandled.count(&descriptor.counts) && descriptor.flow != Flow::PerCpu;
        let interrupt = self.interrupt(descriptor);
        let shut_off = |control: &mut Control| {
            interrupt.disable(control);
            control.shut_off();
        };
        if is_spurious && interrupt.while_installed(shut_off).is_some() {
            self.runtime.host().disabled_as_spurious(descriptor.irq);
        }
    }

    /// Returns a vector's entry, allocating it if necessary, or `None` for vectors beyond the
    /// table.
    ///
    /// Context: task; may sleep.
    pub(crate) fn ensure(&self, hwirq: HwIrq) -> Result<Option<&HwIrqEntry>, TryReserveError> {
        self.table.ensure(hwirq)
    }

    /// Returns an existing interrupt and its entry in the table.
    ///
    /// Context: any.
    pub(crate) fn interrupt<'a>(&'a self, descriptor: &'a Descriptor) -> IrqRef<'a> {
        let entry = self.table.get(descriptor.hwirq);
        let entry = entry.expect("a descriptor's table entry exists as long as the descriptor");
        IrqRef { descriptor, entry, runtime: &self.runtime }
    }
}

/// Sends an interrupt again that arrived while its handler was running.
#[cold]
#[inline(never)]
fn redeliver(runtime: &Runtime, pinned: Pinned<'_, Action>) {
    pinned.descriptor.redeliver(runtime);
    drop(pinned);
}

impl From<NotEntered> for Dispatched {
    fn from(reason: NotEntered) -> Self {
        match reason {
            NotEntered::Busy => Self::Deferred(Deferral::Running),
            NotEntered::Disabled => Self::Deferred(Deferral::Disabled),
            NotEntered::Absent(History::Used) => Self::Unhandled(Unhandled::Released),
            NotEntered::Absent(History::Unused) => Self::Unhandled(Unhandled::Unknown),
        }
    }
}
