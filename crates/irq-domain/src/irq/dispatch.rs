//! Lock-free dispatch of an acknowledged hwirq to its handler, and interrupt control by tasks and
//! handlers, through the descriptor's control state and the handler cells. The source is masked
//! while the interrupt is disabled.

use super::shared_line::{MemberIndex, Remaining, SharedLine};
use crate::error::RequestError;
use crate::irq::control::{Control, HandlerPhase, Released};
use crate::irq::descriptor::{Action, Descriptor, DispatchTable, HwIrqEntry};
use crate::irq::handler::{
    Deferral, Dispatch, Dispatched, Flow, Handler, IrqContext, IrqReturn, Start, Unhandled,
};
use crate::irq::handler_cell::{HandlerCell, History, NotEntered, Pinned, Running, WhenBusy};
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

/// References to an interrupt and to everything that is needed to control it: its descriptor, its
/// entry in the dispatch table, and the kernel.
#[derive(Clone, Copy)]
pub(crate) struct IrqRef<'a> {
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) entry: &'a HwIrqEntry,
    pub(crate) runtime: &'a Runtime,
}

impl IrqRef<'_> {
    fn host(&self) -> &dyn Host {
        self.runtime.host()
    }

    /// Installs a handler in the disabled state. A refused handler is dropped without holding the
    /// lock, because its destructor is kernel code.
    ///
    /// Context: task; may sleep.
    pub(crate) fn put_in(self, action: Action) -> Result<(), RequestError> {
        let in_use = RequestError::InUse(self.descriptor.hwirq);
        let when_busy =
            if self.descriptor.flow == Flow::Level { WhenBusy::Ignore } else { WhenBusy::Mark };
        let mut control = self.descriptor.control.lock(self.host());
        match control.handler() {
            HandlerPhase::Gone => return Err(RequestError::Gone),
            HandlerPhase::Installed => return Err(in_use),
            HandlerPhase::Vacant => {}
        }
        let installed = self.entry.shared.install(action, when_busy);
        if installed.is_ok() {
            control.install();
        }
        drop(control);
        installed.map_err(|_| in_use)
    }

    /// If the interrupt has a handler, masks it and closes its cells. Returns `true` if the
    /// interrupt had a handler, which the caller must then free.
    ///
    /// Context: any.
    pub(crate) fn close(self, after: HandlerPhase) -> bool {
        self.close_under(&mut self.descriptor.control.lock(self.host()), after)
    }

    /// Masks and closes the interrupt like [`close`](Self::close), for callers that already hold
    /// the control lock.
    ///
    /// Context: any.
    fn close_under(self, control: &mut Control, after: HandlerPhase) -> bool {
        if !control.remove(after) {
            return false;
        }
        match self.descriptor.flow {
            // The interrupt need not be masked: the whole store is cleared, and the controller
            // frees the vector.
            _ if after == HandlerPhase::Gone => {}
            Flow::PerCpu => self.with_own_cell(|_| self.descriptor.mask()),
            Flow::Edge | Flow::Level if control.is_rewriting() => {}
            Flow::Edge | Flow::Level => self.descriptor.mask(),
        }
        control.add_closing(self.cells().fold(0, |closed, cell| closed + u32::from(cell.close())));
        true
    }

    /// Removes the handler of a dropped handle: either the interrupt's only handler, or a member of
    /// a shared line. If no handler remains, masks the interrupt and closes its cells.
    ///
    /// Context: any.
    pub(crate) fn release(self, member: Option<MemberIndex>) -> Released {
        if let Some((line, index)) = self.descriptor.shared_line().zip(member) {
            let mut control = self.descriptor.control.lock(self.host());
            if line.leave(&mut control, index) == Remaining::Some {
                if control.enable_all(line.take_disables(index)) {
                    self.let_through(&mut control);
                }
                return Released::Member;
            }
            self.close_under(&mut control, HandlerPhase::Vacant);
            return Released::Interrupt;
        }
        if self.close(HandlerPhase::Vacant) { Released::Interrupt } else { Released::Before }
    }

    /// Adds a handler to a shared line. Returns `false` if the line is being removed. The caller
    /// must have held the request lock ever since it found the vacant member.
    ///
    /// Context: task; may sleep.
    pub(crate) fn join(
        self,
        line: &SharedLine,
        index: MemberIndex,
        handler: Handler,
        start: Start,
    ) -> bool {
        let mut control = self.descriptor.control.lock(self.host());
        let joined = line.join(&mut control, index, handler);
        if joined && start == Start::Disabled {
            line.count_disable(index);
            self.disable(&mut control);
        }
        if joined && control.take_shut_off() {
            self.enable(&mut control);
        }
        joined
    }

    /// Frees the closed handler in all cells that are not in use. Returns `true` if no closed cell
    /// remains.
    ///
    /// Context: task; may sleep.
    pub(crate) fn try_free(self) -> bool {
        // Drop the handlers without holding the lock, because their destructors are kernel code.
        let taken = self.cells().fold(0, |taken, cell| taken + u32::from(cell.take().is_some()));
        self.descriptor.control.lock(self.host()).remove_closing(taken)
    }

    /// Returns the cells that an interrupt with this flow uses.
    fn cells(&self) -> impl Iterator<Item = &HandlerCell<Action>> {
        let shared = (self.descriptor.flow != Flow::PerCpu).then_some(&self.entry.shared);
        let private = (self.descriptor.flow == Flow::PerCpu).then(|| self.entry.all_private());
        shared.into_iter().chain(private.into_iter().flatten())
    }

    /// Returns `true` if arrivals run a handler.
    ///
    /// Context: any.
    pub(crate) fn is_enabled(self) -> bool {
        self.cells().any(HandlerCell::is_enabled)
    }

    /// Runs `act` if the handler is still installed, and keeps it installed during the call. (Once
    /// it is removed, the vector may belong to another device.)
    ///
    /// Context: any.
    pub(crate) fn while_installed<T>(self, act: impl FnOnce(&mut Control) -> T) -> Option<T> {
        let mut control = self.descriptor.control.lock(self.host());
        control.is_installed().then(|| act(&mut control))
    }

    /// Adds a disable, and masks the interrupt if it is the first. The caller must hold the control
    /// lock.
    ///
    /// Context: any.
    pub(crate) fn disable(self, control: &mut Control) {
        if control.disable() {
            self.entry.shared.disable();
            if !control.is_rewriting() {
                self.descriptor.mask();
            }
        }
    }

    /// Undoes a disable, and enables the interrupt if it was the last. The caller must hold the
    /// control lock.
    ///
    /// Context: any.
    pub(crate) fn enable(self, control: &mut Control) {
        if control.enable() {
            self.let_through(control);
        }
    }

    /// Unmasks the interrupt and resends marked arrivals, unless its message is being rewritten.
    /// The caller must hold the control lock.
    ///
    /// Context: any.
    fn let_through(self, control: &mut Control) {
        control.defer(self.entry.shared.enable());
        if !control.is_rewriting() {
            if !control.take_unmasked() {
                self.descriptor.unmask();
            }
            if control.take_resend() {
                self.descriptor.redeliver(self.runtime);
            }
        }
    }

    /// Waits for all handler runs that began before the call. Returns immediately if the caller may
    /// not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn synchronize(self) {
        while self.host().may_wait() && self.entry.shared.is_busy() {
            self.host().yield_now();
        }
    }

    /// Calls `act` with the calling CPU's cell for a private interrupt. A no-op if the interrupt
    /// has no handler on this CPU.
    ///
    /// Context: any.
    pub(crate) fn with_own_cell(self, act: impl FnOnce(&HandlerCell<Action>)) {
        let state = self.host().irq_save();
        if let Some(cpu) = self.host().current_cpu()
            && let Some(cell) = self.entry.private(cpu)
        {
            act(cell);
        }
        self.host().irq_restore(state);
    }

    /// Shuts down a managed interrupt until one of its CPUs is online again. Messages from its
    /// device stay pending until then.
    ///
    /// Context: task; may sleep.
    pub(crate) fn shut_down(self) {
        let mut control = self.descriptor.control.lock(self.host());
        if control.shut_down() {
            self.disable(&mut control);
        }
    }

    /// Starts a managed interrupt that was shut down, now that one of its CPUs is online again.
    ///
    /// Context: task; may sleep.
    pub(crate) fn start(self) {
        let mut control = self.descriptor.control.lock(self.host());
        control.start();
        self.enable(&mut control);
    }
}
