//! A device's messages, masks and enable after it lost them.

use super::{Domain, DomainState, StoreEnable};
use crate::error::MsiDeviceError;
use crate::irq::registry::IrqRegistry;
use msi_types::Shape;

impl Domain {
    /// Writes again everything that the device's store held.
    ///
    /// Context: task; may sleep.
    pub(super) fn restore(&self, registry: &IrqRegistry) -> Result<(), MsiDeviceError> {
        let state = self.state.lock(registry.host());
        self.store.forget();
        if state.enable == StoreEnable::Off {
            return Ok(());
        }
        // An enable or disable meanwhile leaves the endpoint's mask to the end of this.
        let masks_itself = self.endpoint_mask().is_some();
        if masks_itself {
            for entry in state.vectors.values() {
                entry.descriptor.control.lock(registry.host()).begin_rewrite();
            }
        }
        let written = self.write(&state.vectors, shape(&state), StoreEnable::Off);
        if masks_itself {
            for entry in state.vectors.values() {
                entry.descriptor.end_rewrite(registry.runtime());
            }
        }
        written
    }
}

/// A group is alone in its store.
fn shape(state: &DomainState) -> Shape {
    state.allocations.values().next().map_or(Shape::Independent, |allocation| allocation.shape)
}
