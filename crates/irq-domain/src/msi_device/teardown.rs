//! Everything back, in the order that lets no message slip through.

use super::{Domain, Entry, Power};
use crate::descriptor::{Descriptor, Presence};
use crate::error::MsiDeviceError;
use crate::interrupts::Interrupts;
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{Shape, StoreError};

impl Domain {
    /// Removes the handlers, turns the store off, gives vectors, numbers and the attachment back. Once; later
    /// calls do nothing. Task.
    pub(crate) fn tear_down(self: &Arc<Self>, core: &Interrupts) -> Result<(), StoreError> {
        let (allocations, vectors, power) = {
            let mut state = self.state.lock(core.host());
            if core::mem::replace(&mut state.gone, true) {
                return Ok(());
            }
            let allocations = core::mem::take(&mut state.allocations);
            let vectors = core::mem::take(&mut state.vectors);
            (allocations, vectors, core::mem::replace(&mut state.power, Power::Off))
        };
        let closed = close_all(core, vectors.values());
        let quiet = match power {
            Power::Off => Ok(()),
            Power::On => self.quieten(vectors.keys().copied(), Power::Off),
        };
        for entry in closed {
            core.free_handler(&entry.descriptor);
        }
        for entry in vectors.values() {
            core.await_freed(&entry.descriptor);
            core.retire(&entry.descriptor);
        }
        let blocks = allocations.into_values().map(|allocation| allocation.block).collect();
        self.share.leave(core.host(), blocks);
        core.unreserve_deferred();
        quiet
    }

    /// Gives the vector at `slot` back, with its handler. Task.
    pub(super) fn free(self: &Arc<Self>, core: &Interrupts, slot: u16) -> Result<(), MsiDeviceError> {
        let (entry, closed, quiet) = self.take_out(core, slot)?;
        // Without the device's lock: whatever the handler owned is dropped here.
        if closed {
            core.free_handler(&entry.descriptor);
        }
        core.await_freed(&entry.descriptor);
        core.retire(&entry.descriptor);
        let mut state = self.state.lock(core.host());
        if let Some(allocation) = state.allocations.remove(&entry.allocation) {
            self.share.free(core.host(), allocation.block);
        }
        Ok(quiet?)
    }

    /// Closes the vector at `slot` and makes its slot a free one. With the last vector the store is turned off.
    fn take_out(&self, core: &Interrupts, slot: u16) -> Result<TakenOut, MsiDeviceError> {
        let mut state = self.state.lock(core.host());
        let missing = MsiDeviceError::NoVector(slot);
        let allocation = state.vectors.get(&slot).and_then(|entry| state.allocations.get(&entry.allocation));
        let allocation = allocation.ok_or(missing)?;
        if allocation.shape == Shape::AlignedGroup {
            return Err(MsiDeviceError::OfAGroup(slot));
        }
        let entry = state.vectors.remove(&slot).ok_or(missing)?;
        let closed = core.close(&entry.descriptor, Presence::Gone);
        if state.vectors.is_empty() {
            state.power = Power::Off;
        }
        let quiet = self.quieten(core::iter::once(slot), state.power);
        Ok((entry, closed, quiet))
    }
}

/// The vector, whether its handler is the caller's to free, and what the store said.
type TakenOut = (Entry, bool, Result<(), StoreError>);

/// Closes what is still open, and returns those: their handlers are the caller's to free.
fn close_all<'a>(core: &Interrupts, entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a Entry> {
    entries.filter(|entry| core.close(&entry.descriptor, Presence::Gone)).collect()
}

impl Interrupts {
    /// Gives the number of an interrupt without handler back. Its vector may be another's next. Task.
    pub(crate) fn retire(&self, descriptor: &Descriptor) {
        self.slot(descriptor).shared.forget();
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }
}
