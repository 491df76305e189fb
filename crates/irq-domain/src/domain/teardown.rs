//! Everything back, in the order that lets no message slip through.

use super::{DeviceVector, Domain, StoreEnable};
use crate::error::MsiDeviceError;
use crate::irq::control::HandlerPhase;
use crate::irq::registry::IrqRegistry;
use doorbell_fallible::Shared;
use msi_types::{Shape, StoreError};

impl Domain {
    /// Removes the handlers, turns the store off, and frees vectors, numbers and the attachment.
    /// Later calls do nothing.
    ///
    /// Context: task; may sleep.
    pub(crate) fn tear_down(this: &Shared<Self>, registry: &IrqRegistry) -> Result<(), StoreError> {
        let (allocations, vectors, enable) = {
            let mut state = this.state.lock(registry.host());
            if core::mem::replace(&mut state.gone, true) {
                return Ok(());
            }
            let allocations = core::mem::take(&mut state.allocations);
            let vectors = core::mem::take(&mut state.vectors);
            (allocations, vectors, core::mem::replace(&mut state.enable, StoreEnable::Off))
        };
        for entry in vectors.values() {
            registry.interrupt(&entry.descriptor).close(HandlerPhase::Gone);
        }
        let quiet = match enable {
            StoreEnable::Off => Ok(()),
            StoreEnable::On => this.quieten(vectors.iter().map(|(slot, _)| slot), StoreEnable::Off),
        };
        for entry in vectors.values() {
            registry.free_handler(&entry.descriptor);
            registry.retire(&entry.descriptor);
        }
        let mut blocks = allocations.into_values().map(|allocation| allocation.block);
        this.attachment.leave(registry.host(), &mut blocks);
        quiet
    }

    /// Frees the vector at `slot`, with its handler.
    ///
    /// Context: task; may sleep.
    pub(super) fn free(&self, registry: &IrqRegistry, slot: u16) -> Result<(), MsiDeviceError> {
        let (entry, quiet) = self.remove_vector(registry, slot)?;
        // Without the device's lock: whatever the handler owned is dropped here.
        registry.free_handler(&entry.descriptor);
        registry.retire(&entry.descriptor);
        let mut state = self.state.lock(registry.host());
        if let Some(allocation) = state.allocations.remove(entry.first) {
            self.attachment.free(registry.host(), allocation.block);
        }
        Ok(quiet?)
    }

    /// Closes the vector at `slot` and makes its slot a free one. With the last vector the store is
    /// turned off.
    fn remove_vector(
        &self,
        registry: &IrqRegistry,
        slot: u16,
    ) -> Result<RemovedVector, MsiDeviceError> {
        let mut state = self.state.lock(registry.host());
        let missing = MsiDeviceError::NoVector(slot);
        let allocation =
            state.vectors.get(slot).and_then(|entry| state.allocations.get(entry.first));
        let allocation = allocation.ok_or(missing)?;
        if allocation.shape == Shape::AlignedGroup {
            return Err(MsiDeviceError::OfAGroup(slot));
        }
        let entry = state.vectors.remove(slot).ok_or(missing)?;
        registry.interrupt(&entry.descriptor).close(HandlerPhase::Gone);
        if state.vectors.is_empty() {
            state.enable = StoreEnable::Off;
        }
        let quiet = self.quieten(core::iter::once(slot), state.enable);
        Ok((entry, quiet))
    }
}

/// The vector, and what the store said.
type RemovedVector = (DeviceVector, Result<(), StoreError>);
