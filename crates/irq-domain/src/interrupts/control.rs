//! Handlers in and out, interrupts on and off.

use super::Interrupts;
use crate::control::{Control, HandlerPhase};
use crate::descriptor::{Action, Descriptor, Handler};
use crate::error::RequestError;
use crate::handle::IrqHandle;
use crate::handler_cell::{HandlerCell, WhenBusy};
use crate::irq::{Flow, Start};
use crate::name::Name;
use crate::shared::Shared;
use alloc::sync::Arc;

impl Interrupts {
    /// Gives an interrupt its handler. Task.
    pub(crate) fn install(
        self: &Arc<Self>,
        descriptor: &Shared<Descriptor>,
        name: &str,
        handler: Handler,
        start: Start,
    ) -> Result<IrqHandle, RequestError> {
        let name = Name::try_new(name)?;
        self.reserve_deferred()?;
        self.put_in(descriptor, handler).inspect_err(|_| self.unreserve_deferred())?;
        *descriptor.name.lock(self.host()) = Some(name);
        let handle = IrqHandle::new(self.clone(), descriptor.clone());
        if start == Start::Enabled {
            handle.enable();
        }
        Ok(handle)
    }

    /// A refused handler is dropped without the lock: its destructor is the kernel's code.
    fn put_in(
        &self,
        descriptor: &Shared<Descriptor>,
        handler: Handler,
    ) -> Result<(), RequestError> {
        let cell = &self.entry(descriptor).shared;
        let when_busy =
            if descriptor.flow == Flow::Level { WhenBusy::Ignore } else { WhenBusy::Mark };
        let action = Action { handler, descriptor: descriptor.clone() };
        let mut control = descriptor.control.lock(self.host());
        match control.handler() {
            HandlerPhase::Gone => return Err(RequestError::Gone),
            HandlerPhase::Installed => return Err(RequestError::InUse(descriptor.hwirq)),
            HandlerPhase::Vacant => {}
        }
        let installed = cell.install(action, when_busy);
        if installed.is_ok() {
            control.install();
        }
        drop(control);
        installed.map_err(|_| RequestError::InUse(descriptor.hwirq))
    }

    /// Masks an interrupt and closes its cells, if it has a handler. True if it had: the caller
    /// frees it. Any.
    pub(crate) fn close(&self, descriptor: &Descriptor, after: HandlerPhase) -> bool {
        let mut control = descriptor.control.lock(self.host());
        if !control.remove(after) {
            return false;
        }
        match descriptor.flow {
            // The store is quietened as a whole and the controller takes the vector back: nothing
            // to hold back.
            _ if after == HandlerPhase::Gone => {}
            Flow::PerCpu => self.with_own_cell(descriptor, |_| descriptor.mask()),
            Flow::Edge | Flow::Level if control.is_rewriting() => {}
            Flow::Edge | Flow::Level => descriptor.mask(),
        }
        control.add_closing(self.close_cells(descriptor));
        true
    }

    fn close_cells(&self, descriptor: &Descriptor) -> u32 {
        let entry = self.entry(descriptor);
        match descriptor.flow {
            Flow::Edge | Flow::Level => u32::from(entry.shared.close()),
            Flow::PerCpu => {
                entry.all_private().fold(0, |closed, cell| closed + u32::from(cell.close()))
            }
        }
    }

    /// Runs `act` if the handler is still there, and keeps it from going meanwhile: afterwards the
    /// vector may be another's. Any.
    pub(crate) fn while_installed<T>(
        &self,
        descriptor: &Descriptor,
        act: impl FnOnce(&mut Control) -> T,
    ) -> Option<T> {
        let mut control = descriptor.control.lock(self.host());
        control.is_installed().then(|| act(&mut control))
    }

    /// Any.
    pub(crate) fn disable(&self, descriptor: &Descriptor, control: &mut Control) {
        if control.disable() {
            self.entry(descriptor).shared.disable();
            if !control.is_rewriting() {
                descriptor.mask();
            }
        }
    }

    /// Any.
    pub(crate) fn enable(&self, descriptor: &Descriptor, control: &mut Control) {
        if !control.enable() {
            return;
        }
        control.defer(self.entry(descriptor).shared.enable());
        if !control.is_rewriting() {
            if !control.take_unmasked() {
                descriptor.unmask();
            }
            if control.take_resend() {
                descriptor.redeliver(&self.runtime);
            }
        }
    }

    /// Returns once no handler of the interrupt runs that began before the call; at once if the
    /// caller may not wait. Task.
    pub(crate) fn synchronize(&self, descriptor: &Descriptor) {
        while self.host().may_wait() && self.entry(descriptor).shared.is_busy() {
            self.host().yield_now();
        }
    }

    /// A private interrupt's cell of the CPU that calls. Any.
    pub(crate) fn with_own_cell(
        &self,
        descriptor: &Descriptor,
        act: impl FnOnce(&HandlerCell<Action>),
    ) {
        let state = self.host().irq_save();
        if let Some(cpu) = self.host().current_cpu()
            && let Some(cell) = self.entry(descriptor).private(cpu)
        {
            act(cell);
        }
        self.host().irq_restore(state);
    }
}
