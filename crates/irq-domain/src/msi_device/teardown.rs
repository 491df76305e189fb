//! Everything back, in the order that lets no message slip through.

use super::{Allocation, Domain, Entry, Power};
use crate::descriptor::Presence;
use crate::interrupts::Interrupts;
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{Attachment, StoreError};

impl Domain {
    /// Removes the handlers, turns the store off, gives vectors, numbers and the attachment back. Once; later
    /// calls do nothing. Task.
    pub(crate) fn tear_down(self: &Arc<Self>, core: &Interrupts) -> Result<(), StoreError> {
        let (attachment, allocations, vectors, power) = {
            let mut state = self.state.lock(core.host());
            let Some(attachment) = state.attachment.take() else { return Ok(()) };
            let allocations = core::mem::take(&mut state.allocations);
            let vectors = core::mem::take(&mut state.vectors);
            (attachment, allocations, vectors, core::mem::replace(&mut state.power, Power::Off))
        };
        let closed = close_all(core, vectors.values());
        let quiet = match power {
            Power::Off => Ok(()),
            Power::On => self.quieten(&vectors, Power::Off),
        };
        for entry in closed {
            core.bury(&entry.descriptor);
        }
        for entry in vectors.values() {
            await_burial(core, entry);
            core.numbers.lock(core.host()).remove(entry.descriptor.irq);
        }
        self.give_back(attachment, allocations);
        core.unreserve_grave();
        quiet
    }

    fn give_back(&self, attachment: Attachment, allocations: Vec<Allocation>) {
        for allocation in allocations {
            self.parent.free(&attachment, allocation.block);
        }
        self.parent.detach(attachment);
    }
}

/// Closes what is still open, and returns those: their handlers are the caller's to bury.
fn close_all<'a>(core: &Interrupts, entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a Entry> {
    entries.filter(|entry| core.close(&entry.descriptor, Presence::Gone)).collect()
}

/// Waits for handlers whose handle was dropped before, by another task or inside a handler.
fn await_burial(core: &Interrupts, entry: &Entry) {
    while entry.descriptor.control.lock(core.host()).closing != 0 {
        core.reclaim();
        core.host().relax();
    }
}
