//! A device's message store: Linux's "device MSI storage ops".

use crate::{LevelMessages, MsiMessage, Trigger};
use core::num::NonZeroU16;

/// Ways to change a stored message while the device may send it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rewrite {
    /// The vector is masked at the store meanwhile, so any change is safe.
    Masked,
    /// Address and data change in one store: 64 bits wide or more.
    Atomic64,
    /// One store changes the address; the data may not differ. (What a layer that chooses addresses
    /// asks for below it, as the endpoint's own limits are checked with the addresses that it
    /// sees.)
    AddressOnly,
    /// One 32-bit store changes the low address word; nothing else may differ.
    LowWordOnly,
    /// Not at all.
    Never,
}

/// Ways in which a store can hold a vector back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Masking {
    /// Each vector by itself.
    PerVector,
    /// Not at all: the controller must mask.
    None,
}

/// Definition of the store's layout: decides who else knows the messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Storage {
    /// A bus's specification, so that a hypervisor can trap the writes and put in what is real (PCI
    /// MSI, MSI-X).
    Bus,
    /// The device (IMS): what is written there is sent as it is.
    Device,
    /// The device, of a kind that no hypervisor passes through. In a guest it is the hypervisor's
    /// emulation, which knows what is stored (an IOMMU's own messages, virtio over MMIO).
    Emulated,
}

/// Limits of a store. A parent allocates within them or refuses with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Fit {
    /// Address bits: 32 or 64.
    pub address_bits: u8,
    /// Data bits: 16 or 32.
    pub data_bits: u8,
    /// Way to change a message.
    pub rewrite: Rewrite,
}

impl Fit {
    /// 64 address bits and 32 data bits, as MSI-X has, rewritten in this way.
    pub const fn new(rewrite: Rewrite) -> Self {
        Self { address_bits: 64, data_bits: 32, rewrite }
    }

    /// With so many [`address_bits`](Self::address_bits).
    #[must_use]
    pub const fn with_address_bits(self, address_bits: u8) -> Self {
        Self { address_bits, ..self }
    }

    /// With so many [`data_bits`](Self::data_bits).
    #[must_use]
    pub const fn with_data_bits(self, data_bits: u8) -> Self {
        Self { data_bits, ..self }
    }

    /// With this [`rewrite`](Self::rewrite).
    #[must_use]
    pub const fn with_rewrite(self, rewrite: Rewrite) -> Self {
        Self { rewrite, ..self }
    }

    /// Checks a message against the widths.
    ///
    /// # Errors
    /// [`MsiError::AddressTooWide`](crate::MsiError::AddressTooWide) or
    /// [`MsiError::DataTooWide`](crate::MsiError::DataTooWide).
    pub const fn check(&self, message: MsiMessage) -> Result<(), crate::MsiError> {
        if self.address_bits < 64 && message.address >> self.address_bits != 0 {
            return Err(crate::MsiError::AddressTooWide {
                address: message.address,
                bits: self.address_bits,
            });
        }
        if self.data_bits < 32 && message.data >> self.data_bits != 0 {
            return Err(crate::MsiError::DataTooWide { data: message.data, bits: self.data_bits });
        }
        Ok(())
    }
}

/// The store failed to take an update: a command queue reported an error, a device is gone, a
/// read-back differed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the device's message store failed at slot {slot}: {reason}")]
pub struct StoreError {
    /// The slot that failed.
    pub slot: u16,
    /// Reason of the failure.
    pub reason: &'static str,
}

/// The open update of a store. Nothing is promised to be visible to the device before
/// [`MessageStore::update`] returns `Ok`.
pub trait StoreUpdate {
    /// Stores the message of a slot.
    fn write(&mut self, slot: u16, message: MsiMessage);
    /// Stores both messages of a slot. Called only for stores that [signal by
    /// levels](MessageStore::trigger): others have one message in a slot, and take the first as
    /// provided.
    fn write_level(&mut self, slot: u16, messages: LevelMessages) {
        self.write(slot, messages.assert);
    }
    /// Holds a slot's vector back. Ignored where the store cannot mask ([`MessageStore::masking`]).
    fn mask(&mut self, slot: u16);
    /// Lets a slot's vector through.
    fn unmask(&mut self, slot: u16);
    /// The slot has no vector any more: what it holds must not be sent. Masks, if the store does
    /// not know better.
    fn clear(&mut self, slot: u16) {
        self.mask(slot);
    }
}

/// A device's message store, implemented by a bus (PCI MSI, MSI-X) or by a device driver (IMS).
/// Object safe.
pub trait MessageStore: Send + Sync {
    /// Returns the number of slots.
    fn slots(&self) -> u16;
    /// Returns the limits of a slot.
    fn fit(&self) -> Fit;
    /// Can the store mask?
    fn masking(&self) -> Masking;
    /// Returns the definition of the layout. A store that does not say is the device's own.
    fn storage(&self) -> Storage {
        Storage::Device
    }
    /// Returns the way in which the device signals: by messages, unless the store says otherwise. A
    /// level needs a controller with two messages for a vector, and the slots hold both.
    fn trigger(&self) -> Trigger {
        Trigger::Edge
    }
    /// Takes the bus lock, runs `change`, posts the writes and reads back, and unlocks. Sleeps if
    /// the store does: task context.
    ///
    /// # Errors
    /// The store did not take it all. It then holds the old message of the failed slot and those
    /// after it. A mask or unmask after the failure may not have taken effect.
    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError>;
    /// Tells a store whose vectors are one aligned group how many vectors the controller granted: a
    /// power of two, at most [`slots`](Self::slots) (MSI's Multiple Message Enable). Called while
    /// the store is off. Stores with independent slots need not do anything.
    ///
    /// Context: task; may sleep.
    fn grant(&self, vectors: NonZeroU16) -> Result<(), StoreError> {
        let _ = vectors;
        Ok(())
    }
    /// Tells the store that the device lost its registers in a reset or without power, and is
    /// turned off. The store must not rely on their earlier contents, which the next
    /// [`grant`](Self::grant), [`update`](Self::update) and [`set_enabled`](Self::set_enabled)
    /// write again.
    ///
    /// Context: task; may sleep.
    fn forget(&self) {}
    /// Turns the function's interrupts on or off as a whole: the capability's enable bit.
    ///
    /// Context: task; may sleep.
    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError>;
    /// Masking that is safe in hard-IRQ context, where the store has it.
    fn fast_mask(&self) -> Option<&dyn FastMask> {
        None
    }
}

/// A mask bit that can be written in hard-IRQ context.
pub trait FastMask: Sync {
    /// Masks the slot's vector. After the call the device sends no message for it.
    ///
    /// Context: any.
    fn mask(&self, slot: u16);
    /// Unmasks the slot's vector.
    ///
    /// Context: any.
    fn unmask(&self, slot: u16);
    /// Returns true if a message is pending because of the mask.
    ///
    /// Context: any.
    fn is_pending(&self, slot: u16) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MsiError;

    const MSI32: Fit = Fit::new(Rewrite::Never).with_address_bits(32).with_data_bits(16);

    #[test]
    fn fit_refuses_a_high_doorbell_for_32_bits() {
        let message = MsiMessage { address: 0x1_0000_0040, data: 1 };
        assert_eq!(
            MSI32.check(message),
            Err(MsiError::AddressTooWide { address: 0x1_0000_0040, bits: 32 })
        );
    }

    #[test]
    fn fit_refuses_wide_data_for_pci_msi() {
        let message = MsiMessage { address: 0x40, data: 0x1_0000 };
        assert_eq!(MSI32.check(message), Err(MsiError::DataTooWide { data: 0x1_0000, bits: 16 }));
    }

    #[test]
    fn fit_accepts_the_widest_message() {
        assert_eq!(MSI32.check(MsiMessage { address: 0xffff_ffff, data: 0xffff }), Ok(()));
    }
}
