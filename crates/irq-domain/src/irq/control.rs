//! The control state of an interrupt.
//!
//! | state | set by | cleared by |
//! |---|---|---|
//! | handler `Installed` | a request | the handle's drop, or its device |
//! | handler `Gone` | the device that frees the vector | never: the descriptor is freed |
//! | `disables` | each disable, the install, a shutdown | each enable, the CPU's return |
//! | `unmasked` | the allocation, if the source is not masked | the first enable |
//! | `rewriting` | a move or a restore, before the message is rewritten | the same, afterwards |
//! | `members` | each handler of a shared line | each handle's drop |
//! | `shut_off` | dispatch, when the interrupt screams | an enable, or another handler of its line |
//! | `resend` | an enable that finds an arrival marked at the cell | the enable, or the end of the rewrite |
//! | `closing` | the close of a handler, per cell | a task that frees the handler |
//! | `shut_down` | the last CPU of a managed interrupt that goes offline | the first one that comes online |
//!
//! All changes are made under the descriptor's lock, by any context. Exceptions are `rewriting` (a
//! task under the device's lock) and `shut_down` (a task under the hotplug lock). The source is
//! masked while `disables` is not 0, but changes that are made while `rewriting` is set take effect
//! at its end.

/// The control state, which tasks and handlers change.
#[derive(Debug)]
pub(crate) struct Control {
    handler: HandlerPhase,
    disables: u32,
    unmasked: bool,
    rewriting: bool,
    resend: bool,
    closing: u32,
    shut_down: bool,
    /// Number of handlers of a shared line; 1 for an interrupt that is not shared.
    members: u32,
    shut_off: bool,
}

/// Presence of an interrupt's handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandlerPhase {
    /// The interrupt has no handler.
    Vacant,
    /// The interrupt has a handler, which its handle owns. Another one can be installed only after
    /// that handle was dropped.
    Installed,
    /// The interrupt itself is being freed. A handle may outlive it.
    Gone,
}

/// State of an interrupt whose handle was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// The interrupt is closed. Its handler may still run.
    Interrupt,
    /// The interrupt has other handlers. The released handler may still run.
    Member,
    /// The handler was already freed together with its device.
    Before,
}

impl Control {
    /// Creates the state of an interrupt without a handler; `unmasked` if its source is unmasked.
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

    /// Records that a handler was installed, disabled.
    pub(crate) fn install(&mut self) {
        self.change_handler(HandlerPhase::Installed);
    }

    /// Removes the handler; returns `true` if the interrupt had one. An interrupt without a handler
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

    /// Returns `true` if the source was never masked, and clears the mark. The first enable must
    /// then not unmask it.
    pub(crate) fn take_unmasked(&mut self) -> bool {
        core::mem::take(&mut self.unmasked)
    }

    /// Begins a rewrite of the endpoint's message.
    pub(crate) fn begin_rewrite(&mut self) {
        self.rewriting = true;
    }

    /// Ends the rewrite. Returns `true` if the interrupt is enabled.
    pub(crate) fn end_rewrite(&mut self) -> bool {
        self.rewriting = false;
        self.disables == 0
    }

    /// Adds closed cells whose handlers must be freed.
    pub(crate) fn add_closing(&mut self, cells: u32) {
        self.closing += cells;
    }

    /// Removes closed cells whose handlers were freed. Returns `true` if none is left.
    pub(crate) fn remove_closing(&mut self, cells: u32) -> bool {
        self.closing = self.closing.saturating_sub(cells);
        self.closing == 0
    }

    /// Counts another handler of a shared line.
    pub(crate) fn add_member(&mut self) {
        self.members = self.members.saturating_add(1);
    }

    /// Removes a handler of a shared line from the count. Returns `true` if no handler is left.
    pub(crate) fn remove_member(&mut self) -> bool {
        self.members = self.members.saturating_sub(1);
        self.members == 0
    }

    /// Marks an interrupt as screaming. The caller must disable it.
    pub(crate) fn shut_off(&mut self) {
        self.shut_off = true;
    }

    /// Returns `true` if the interrupt was shut off, and clears the mark. The caller must then
    /// enable it.
    pub(crate) fn take_shut_off(&mut self) -> bool {
        core::mem::take(&mut self.shut_off)
    }

    /// Undoes `disables`. Returns `true` if this enables the interrupt.
    pub(crate) fn enable_all(&mut self, disables: u32) -> bool {
        let was_disabled = self.disables != 0;
        self.disables = self.disables.saturating_sub(disables);
        was_disabled && self.disables == 0
    }

    /// Marks a managed interrupt that has no online CPU. Returns `true` if it was not marked
    /// before; the caller must then disable it.
    pub(crate) fn shut_down(&mut self) -> bool {
        !core::mem::replace(&mut self.shut_down, true)
    }

    /// Clears that mark, because a CPU of the managed interrupt is online again. The caller must
    /// enable the interrupt.
    pub(crate) fn start(&mut self) {
        self.shut_down = false;
    }
}
