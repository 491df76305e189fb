//! The message store of the tests' devices.

use msi_types::{
    Fit, Masking, MessageStore, MsiMessage, Rewrite, Storage, StoreError, StoreUpdate,
};
use std::sync::Mutex;

/// A device's message store, in a place that the bus defines or in memory of the device's own.
pub(crate) struct Messages(pub(crate) Mutex<[MsiMessage; 4]>, pub(crate) Storage);

impl Default for Messages {
    fn default() -> Self {
        Self(Mutex::default(), Storage::Bus)
    }
}

impl StoreUpdate for &Messages {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.lock().unwrap()[usize::from(slot)] = message;
    }

    fn mask(&mut self, _: u16) {}
    fn unmask(&mut self, _: u16) {}
}

impl MessageStore for Messages {
    fn slots(&self) -> u16 {
        4
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::None
    }

    fn storage(&self) -> Storage {
        self.1
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut &*self);
        Ok(())
    }

    fn set_enabled(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}
