//! Interrupt control by tasks and handlers, through the descriptor's control state and the handler
//! cells. The source is masked while the interrupt is disabled.

use crate::error::RequestError;
use crate::irq::control::{Control, HandlerPhase, Released};
use crate::irq::descriptor::{Action, Descriptor};
use crate::irq::dispatch_table::HwIrqEntry;
use crate::irq::handler::{Flow, Handler, Start};
use crate::irq::handler_cell::{HandlerCell, WhenBusy};
use crate::irq::shared_line::{MemberIndex, Remaining, SharedLine};
use crate::runtime::{Host, Runtime};

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
