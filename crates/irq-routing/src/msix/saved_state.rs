//! Saving and restoring the table.

use super::MsixTable;
use super::guest::Entry;
use crate::Unsettled;
use crate::saved_state::{MsixState, StateError, VERSION, check_version};
use core::time::Duration;
use msi_types::pci::msix::Control;

impl MsixTable {
    /// Waits until every signal from before this call is in the interrupt controller or is pending
    /// in the table, including signals that are still in eventfds. Call this once the devices have
    /// stopped, and before the interrupt controller is saved. Otherwise, a signal that is still in
    /// an open vector's eventfd is in neither saved state.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if a signal is still being served after `limit`.
    pub fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        // A function that serves a signal may call the table, so don't hold the lock yet.
        self.observer.as_ref().map_or(Ok(()), |observer| observer.settle(limit))?;
        let guest = self.guest.lock();
        self.poll(&guest, 0..guest.entries.len());
        Ok(())
    }

    /// Saves the table. Consumes signals in masked vectors' eventfds and saves them as pending.
    /// [`settle`](Self::settle) must come first if open vectors have eventfds.
    pub fn save(&self) -> MsixState {
        let guest = self.guest.lock();
        self.poll(&guest, 0..guest.entries.len());
        let pending = (0..).zip(&self.vectors).filter(|(_, vector)| vector.is_pending());
        MsixState {
            version: VERSION,
            control: guest.control.into_bits(),
            bus_master: guest.bus_master,
            entries: guest.entries.iter().map(Entry::words).collect(),
            pending: pending.map(|(number, _)| number).collect(),
        }
    }

    /// Checks that [`restore`](Self::restore) would accept a state. Changes nothing.
    ///
    /// # Errors
    /// Returns the error that `restore` would return.
    pub fn check_restorable(&self, state: &MsixState) -> Result<(), StateError> {
        check(state, self.control())
    }

    /// Restores a saved state, and sends pending messages that are not masked.
    ///
    /// # Errors
    /// Returns an error if the state was not saved from a table of this size. In that case, the
    /// table is unchanged.
    pub fn restore(&self, state: &MsixState) -> Result<(), StateError> {
        let mut guest = self.guest.lock();
        check(state, guest.control)?;
        self.forget_all(&mut guest);
        let pending =
            state.pending.iter().filter_map(|number| self.vectors.get(usize::from(*number)));
        // Every vector is closed, so this makes the message pending.
        pending.for_each(|vector| _ = vector.enter());
        guest.bus_master = state.bus_master;
        guest.write_control(Control::from_bits(state.control));
        for (entry, words) in guest.entries.iter_mut().zip(&state.entries) {
            entry.set_words(*words);
        }
        self.apply_all(&mut guest);
        Ok(())
    }
}

/// Writable bits of Message Control.
const WRITABLE: u16 = Control::new().with_enable(true).with_function_mask(true).into_bits();

fn check(state: &MsixState, here: Control) -> Result<(), StateError> {
    let MsixState { version, control, bus_master: _, entries, pending } = state;
    check_version(*version)?;
    let fixed = here.into_bits() & !WRITABLE;
    if control & !WRITABLE != fixed || entries.len() != usize::from(here.table_size()) {
        let (saved, entries) = (*control, entries.len());
        return Err(StateError::OtherFunction { saved, entries, here: here.into_bits() });
    }
    for words in entries {
        Entry::reserved_bits(*words).map_or(Ok(()), |(register, value)| {
            Err(StateError::ReservedBits { register, value: value.into() })
        })?;
    }
    let mut next = 0;
    for vector in pending {
        if *vector < next || *vector >= here.table_size() {
            return Err(StateError::Pending(*vector));
        }
        next = vector + 1;
    }
    Ok(())
}
