//! An interrupt's control state.
//!
//! | state | set by | cleared by |
//! |---|---|---|
//! | handler `Installed` | a request | the handle's drop, or its device |
//! | handler `Gone` | the device that frees the vector | never: the descriptor is freed |
//! | `disables` | each disable, the install, a shutdown | each enable, the CPU's return |
//! | `unmasked` | the allocation, if the source is not masked | the first enable |
//! | `rewriting` | a move or a restore, before the message is rewritten | the same, afterwards |
//! | `members` | each handler of a shared line | each handle's drop |
//! | `shut_off` | dispatch, when the interrupt is spurious | an enable, or another handler of its line |
//! | `resend` | an enable that finds an arrival marked at the cell | the enable, or the end of the rewrite |
//! | `closing` | the close of a handler, per cell | a task that frees the handler |
//! | `shut_down` | the last CPU of a managed interrupt that goes offline | the first one that comes online |
//!
//! All fields are protected by the descriptor's lock. They may be changed in any context, with two
//! exceptions: `rewriting` is only changed by a task that also holds the device's lock, and
//! `shut_down` only by a task that also holds the hotplug lock. The source is masked while
//! `disables` is not 0. If `disables` changes while `rewriting` is set, the source is masked or
//! unmasked when `rewriting` is cleared.

use msi_types::explain::Obstacle;

/// The control state, as changed by tasks and handlers.
#[derive(Debug)]
pub(crate) struct Control {
    handler: HandlerPhase,
    disables: u32,
    unmasked: bool,
    rewriting: bool,
    resend: bool,
    closing: u32,
    shut_down: bool,
    /// Number of handlers on a shared line; 1 if the interrupt isn't shared.
    members: u32,
    shut_off: bool,
}

/// Phase of an interrupt's handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandlerPhase {
    /// The interrupt has no handler.
    Vacant,
    /// The interrupt has a handler, owned by its handle. Another handler can only be installed
    /// after this handle has been dropped.
    Installed,
    /// The interrupt itself is being freed, although its handle may still exist.
    Gone,
}

/// The part of an interrupt that remains to be freed after a handle was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// The interrupt is closed, but its handler may still be running.
    Interrupt,
    /// The interrupt has other handlers, and the released one may still be running.
    Member,
    /// The handler was already freed together with its device.
    Before,
}

impl Control {
    /// Creates the state for an interrupt without a handler. The source must be unmasked if
    /// `unmasked` is `true`, and masked otherwise.
    pub(crate) const fn new(unmasked: bool) -> Self {
        Self {
            handler: HandlerPhase::Vacant,
            disables: 1,
            unmasked,
            rewriting: false,
            resend: false,
            closing: 0,
            shut_down: false,
            members: 0,
            shut_off: false,
        }
    }

    pub(crate) const fn handler(&self) -> HandlerPhase {
        self.handler
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.handler == HandlerPhase::Installed
    }

    pub(crate) const fn is_rewriting(&self) -> bool {
        self.rewriting
    }

    pub(crate) const fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Returns the obstacle, if any, that keeps the handler from running when the interrupt
    /// arrives.
    pub(crate) const fn obstacle(&self) -> Option<Obstacle> {
        match self.handler {
            HandlerPhase::Vacant | HandlerPhase::Gone => Some(Obstacle::NotRequested),
            HandlerPhase::Installed if self.shut_down => Some(Obstacle::ShutDown),
            HandlerPhase::Installed if self.shut_off => Some(Obstacle::DisabledAsSpurious),
            HandlerPhase::Installed if self.disables != 0 => Some(Obstacle::DisabledByDriver),
            HandlerPhase::Installed => None,
        }
    }

    /// Records that a handler was installed, in the disabled state.
    pub(crate) fn install(&mut self) {
        self.change_handler(HandlerPhase::Installed);
    }

    /// Removes the handler. Returns `true` if the interrupt had one. An interrupt without a handler
    /// can still become `Gone`.
    pub(crate) fn remove(&mut self, after: HandlerPhase) -> bool {
        let before = self.handler;
        match before {
            HandlerPhase::Installed => self.change_handler(after),
            HandlerPhase::Vacant => self.handler = after,
            HandlerPhase::Gone => {}
        }
        before == HandlerPhase::Installed
    }

    fn change_handler(&mut self, to: HandlerPhase) {
        self.handler = to;
        self.disables = 1 + u32::from(self.shut_down);
        self.resend = false;
        self.members = u32::from(to == HandlerPhase::Installed);
        self.shut_off = false;
    }

    /// Adds a disable. Returns `true` if the interrupt was enabled before.
    pub(crate) fn disable(&mut self) -> bool {
        self.disables = self.disables.saturating_add(1);
        self.disables == 1
    }

    /// Undoes one disable. Returns `true` if this enables the interrupt.
    pub(crate) fn enable(&mut self) -> bool {
        self.enable_all(1)
    }

    /// Records that an arrival must be sent again, if `arrived` is `true`.
    pub(crate) fn defer(&mut self, arrived: bool) {
        self.resend |= arrived;
    }

    /// Returns `true` if an arrival must be sent again, and clears the record.
    pub(crate) fn take_resend(&mut self) -> bool {
        core::mem::take(&mut self.resend)
    }

    /// Returns `true` if the source was never masked, and clears the record. The first enable must
    /// then skip the unmask.
    pub(crate) fn take_unmasked(&mut self) -> bool {
        core::mem::take(&mut self.unmasked)
    }

    /// Begins to rewrite the endpoint's message.
    pub(crate) fn begin_rewrite(&mut self) {
        self.rewriting = true;
    }

    /// Ends a rewrite. Returns `true` if the interrupt is enabled.
    pub(crate) fn end_rewrite(&mut self) -> bool {
        self.rewriting = false;
        self.disables == 0
    }

    /// Adds to the number of closed cells whose handlers must still be freed.
    pub(crate) fn add_closing(&mut self, cells: u32) {
        self.closing += cells;
    }

    /// Subtracts the cells whose handlers were freed from the number of closed cells. Returns
    /// `true` if the result is 0.
    pub(crate) fn remove_closing(&mut self, cells: u32) -> bool {
        self.closing = self.closing.saturating_sub(cells);
        self.closing == 0
    }

    /// Adds a shared-line handler to the count.
    pub(crate) fn add_member(&mut self) {
        self.members = self.members.saturating_add(1);
    }

    /// Removes a shared-line handler from the count. Returns `true` if it was the line's last
    /// handler.
    pub(crate) fn remove_member(&mut self) -> bool {
        self.members = self.members.saturating_sub(1);
        self.members == 0
    }

    /// Marks the interrupt as shut off because it is spurious. The caller must disable it.
    pub(crate) fn shut_off(&mut self) {
        self.shut_off = true;
    }

    /// Returns `true` if the interrupt was shut off, and clears the mark. In that case the caller
    /// must enable the interrupt.
    pub(crate) fn take_shut_off(&mut self) -> bool {
        core::mem::take(&mut self.shut_off)
    }

    /// Undoes the given number of disables. Returns `true` if this enables the interrupt.
    pub(crate) fn enable_all(&mut self, disables: u32) -> bool {
        let was_disabled = self.disables != 0;
        self.disables = self.disables.saturating_sub(disables);
        was_disabled && self.disables == 0
    }

    /// Marks a managed interrupt as shut down, because none of its CPUs is online. Returns `true`
    /// if the interrupt was not marked before; the caller must then disable it.
    pub(crate) fn shut_down(&mut self) -> bool {
        !core::mem::replace(&mut self.shut_down, true)
    }

    /// Clears the [`shut_down`](Self::shut_down) mark, because one of the managed interrupt's CPUs
    /// is online again. The caller must enable the interrupt.
    pub(crate) fn start(&mut self) {
        self.shut_down = false;
    }
}
