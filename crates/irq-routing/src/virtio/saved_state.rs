//! Saving and restoring a device's vectors.

use super::{NO_VECTOR, Notification, VirtioNotifier};
use crate::saved_state::{StateError, VERSION, VirtioState, check_version};

/// Bits of the ISR status that a device can set.
const ISR_BITS: u8 = Notification::ConfigurationChange.isr() | Notification::UsedBuffer(0).isr();

impl VirtioNotifier {
    /// Saves the vectors and the ISR status. The MSI-X table has its own
    /// [state](crate::msix::MsixTable::save).
    pub fn save(&self) -> VirtioState {
        let _locked = self.assigning.lock();
        let isr = self.isr.lock();
        let mut vectors = self.notifications().map(|notification| self.vector(notification));
        VirtioState {
            version: VERSION,
            configuration_vector: vectors.next().unwrap_or(NO_VECTOR),
            queue_vectors: vectors.collect(),
            isr: isr.bits,
        }
    }

    /// Checks that [`restore`](Self::restore) would accept a state. Changes nothing.
    ///
    /// # Errors
    /// Returns the error that `restore` would return.
    pub fn check_restorable(&self, state: &VirtioState) -> Result<(), StateError> {
        let VirtioState { version, configuration_vector, queue_vectors, isr: bits } = state;
        check_version(*version)?;
        let queues = self.vectors.len() - 1;
        if queue_vectors.len() != queues {
            return Err(StateError::Queues { saved: queue_vectors.len(), here: queues });
        }
        let mut vectors = core::iter::once(configuration_vector).chain(queue_vectors);
        let is_missing = |vector: &&u16| **vector != NO_VECTOR && **vector >= self.table_size;
        if let Some(vector) = vectors.find(is_missing) {
            return Err(StateError::Vector(*vector));
        }
        if bits & !ISR_BITS != 0 {
            let value = u64::from(bits & !ISR_BITS);
            return Err(StateError::ReservedBits { register: "ISR status", value });
        }
        Ok(())
    }

    /// Restores a saved state, tells the observer about all vectors, and drives the pin, even if
    /// its level is unchanged. The interrupt controller and the MSI-X table must be restored first.
    ///
    /// # Errors
    /// Returns an error if the version is not supported, the number of queues differs, the table
    /// lacks a vector, or the ISR status has reserved bits. In that case, the notifier is
    /// unchanged.
    pub fn restore(&self, state: &VirtioState) -> Result<(), StateError> {
        self.check_restorable(state)?;
        let _locked = self.assigning.lock();
        let vectors = core::iter::once(&state.configuration_vector).chain(&state.queue_vectors);
        for (notification, vector) in self.notifications().zip(vectors) {
            self.assign(notification, *vector);
        }
        let mut isr = self.isr.lock();
        isr.bits = state.isr;
        isr.pin = self.level(&isr);
        self.drive_always(&isr);
        Ok(())
    }
}
