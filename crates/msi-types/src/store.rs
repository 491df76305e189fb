//! The store of a device's messages, and the ways in which it can be changed.

use crate::explain::Explanation;
use crate::{LevelMessages, MsiMessage, RequesterId, Trigger};
use core::num::NonZeroU16;

/// Ways to change a stored message while the device may send it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rewrite {
    /// The vector is masked at the store during the change, so any change is safe.
    Masked,
    /// One store of at least 64 bits changes the address and the data.
    Atomic64,
    /// One store changes the address; the data must not change. A layer that chooses addresses
    /// requests this from the level below: it checks the addresses that it chose against the
    /// endpoint's own limits itself.
    AddressOnly,
    /// One 32-bit store changes the low address word; the rest of the message must not change.
    LowWordOnly,
    /// The message cannot be changed safely.
    Never,
}

/// Ways in which a store can mask a vector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Masking {
    /// Each vector has its own mask.
    PerVector,
    /// The store cannot mask vectors, so the controller must mask them.
    None,
}

/// The party that defines a store's layout, which determines whether a hypervisor can find the
/// stored messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Storage {
    /// A bus specification (PCI MSI, MSI-X), so a hypervisor can trap the writes and substitute the
    /// physical message.
    Bus,
    /// The device (IMS). A hypervisor does not know the layout, so a stored message is sent
    /// unmodified.
    Device,
    /// A device of a kind that hypervisors emulate and never pass through (an IOMMU's own messages,
    /// virtio over MMIO). In a guest, the hypervisor therefore knows the stored messages.
    Emulated,
}

/// Limits of a store. A parent must allocate within them, or refuse and report the reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Fit {
    /// Number of address bits: 32 or 64.
    pub address_bits: u8,
    /// Number of data bits: 16 or 32.
    pub data_bits: u8,
    /// The way in which a message can be changed.
    pub rewrite: Rewrite,
}

impl Fit {
    /// Creates limits of 64 address bits and 32 data bits, like those of MSI-X.
    pub const fn new(rewrite: Rewrite) -> Self {
        Self { address_bits: 64, data_bits: 32, rewrite }
    }

    /// Sets [`address_bits`](Self::address_bits).
    #[must_use]
    pub const fn with_address_bits(self, address_bits: u8) -> Self {
        Self { address_bits, ..self }
    }

    /// Sets [`data_bits`](Self::data_bits).
    #[must_use]
    pub const fn with_data_bits(self, data_bits: u8) -> Self {
        Self { data_bits, ..self }
    }

    /// Sets [`rewrite`](Self::rewrite).
    #[must_use]
    pub const fn with_rewrite(self, rewrite: Rewrite) -> Self {
        Self { rewrite, ..self }
    }

    /// Checks that the address and data of a message fit the store's registers.
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

/// The failure of a store's update: for example, a command queue reported an error, the device is
/// gone, or a read-back differed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the device's message store failed at slot {slot}: {reason}")]
pub struct StoreError {
    /// The slot that failed.
    pub slot: u16,
    /// Reason for the failure.
    pub reason: &'static str,
}

/// An update of a store in progress. The changes may not be visible to the device before
/// [`MessageStore::update`] returns `Ok`.
pub trait StoreUpdate {
    /// Stores a slot's message.
    fn write(&mut self, slot: u16, message: MsiMessage);
    /// Stores both messages of a slot. This function is called only for stores whose
    /// [trigger](MessageStore::trigger) is a level. The provided method stores only the assert
    /// message.
    fn write_level(&mut self, slot: u16, messages: LevelMessages) {
        self.write(slot, messages.assert);
    }
    /// Masks a slot's vector. Has no effect if the store cannot mask ([`MessageStore::masking`]).
    fn mask(&mut self, slot: u16);
    /// Unmasks a slot's vector.
    fn unmask(&mut self, slot: u16);
    /// Clears a slot that no longer has a vector. After this call, the device must not send the
    /// slot's message. The provided method masks the slot.
    fn clear(&mut self, slot: u16) {
        self.mask(slot);
    }
}

/// The state of a slot as read from the device, which may differ from what its driver stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SlotState {
    /// The message that the device sends; `None` if the registers that hold it cannot be read.
    pub message: Option<MsiMessage>,
    /// The device's requester ID, if the store knows it.
    pub requester: Option<RequesterId>,
    /// The stages [`Endpoint`](crate::explain::Stage::Endpoint) and
    /// [`Bus`](crate::explain::Stage::Bus), to the extent that the store can read them.
    pub explanation: Explanation,
}

impl SlotState {
    /// Creates the state of a slot with an explanation, but without a message or requester ID.
    pub const fn new(explanation: Explanation) -> Self {
        Self { message: None, requester: None, explanation }
    }
}

/// A device's message store, implemented by a bus (PCI MSI, MSI-X) or by a device driver (IMS). The
/// trait is object safe.
///
/// A device that keeps its messages in its own memory and cannot mask them:
///
/// ```
/// use msi_types::{Fit, Masking, MessageStore, MsiMessage, Rewrite, StoreError, StoreUpdate};
/// use std::sync::Mutex;
///
/// struct Rings(Mutex<[MsiMessage; 4]>); // A ring sends no message while this is locked.
///
/// struct Update<'a>(&'a mut [MsiMessage; 4]);
///
/// impl StoreUpdate for Update<'_> {
///     fn write(&mut self, slot: u16, message: MsiMessage) {
///         self.0[usize::from(slot)] = message;
///     }
///     fn mask(&mut self, _: u16) {}
///     fn unmask(&mut self, _: u16) {}
/// }
///
/// impl MessageStore for Rings {
///     fn slots(&self) -> u16 { 4 }
///     fn fit(&self) -> Fit { Fit::new(Rewrite::Atomic64) }
///     fn masking(&self) -> Masking { Masking::None }
///     fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
///         change(&mut Update(&mut self.0.lock().unwrap()));
///         Ok(())
///     }
///     fn set_enabled(&self, _: bool) -> Result<(), StoreError> { Ok(()) }
/// }
///
/// let rings = Rings(Mutex::default());
/// let message = MsiMessage { address: 0x0809_0040, data: 9 };
/// rings.update(&mut |update| update.write(2, message))?;
/// assert_eq!(rings.0.lock().unwrap()[2], message);
/// # Ok::<(), StoreError>(())
/// ```
#[doc(alias = "irq_write_msi_msg")]
#[doc(alias = "device MSI storage ops")]
pub trait MessageStore: Send + Sync {
    /// Returns the number of slots.
    fn slots(&self) -> u16;
    /// Returns the limits of a slot.
    fn fit(&self) -> Fit;
    /// Returns the way in which the store can mask a vector.
    fn masking(&self) -> Masking;
    /// Returns the party that defines the store's layout; the device, unless the store overrides
    /// this.
    fn storage(&self) -> Storage {
        Storage::Device
    }
    /// Returns the trigger mode of the device's interrupts; edge, unless the store overrides this.
    /// A level-triggered store holds two messages per slot, and needs a controller that provides
    /// both messages.
    fn trigger(&self) -> Trigger {
        Trigger::Edge
    }
    /// Acquires the bus lock, runs `change`, posts the writes, reads them back, and releases the
    /// lock.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Reports the slot whose update failed. The store still holds the old messages of that slot
    /// and of the slots after it. A mask or unmask after the failure may not have taken effect.
    #[doc(alias = "irq_bus_lock")]
    #[doc(alias = "irq_bus_sync_unlock")]
    #[doc(alias = "buslock")]
    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError>;
    /// Informs the store how many vectors the controller granted, if they form an aligned group.
    /// The number is a power of two and at most [`slots`](Self::slots) (MSI's Multiple Message
    /// Enable). Must be called while the store is disabled. Stores with independent slots need not
    /// override this.
    ///
    /// Context: task; may sleep.
    fn grant(&self, vectors: NonZeroU16) -> Result<(), StoreError> {
        let _ = vectors;
        Ok(())
    }
    /// Informs the store that the device lost its register contents, by a reset or a loss of power,
    /// and is turned off. The store must not rely on the earlier contents, which the next
    /// [`grant`](Self::grant), [`update`](Self::update) and [`set_enabled`](Self::set_enabled)
    /// write again.
    ///
    /// Context: task; may sleep.
    fn forget(&self) {}
    /// Enables or disables all of the function's interrupts: the capability's enable bit.
    ///
    /// Context: task; may sleep.
    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError>;
    /// Reads a slot back from the device, and determines what prevents the device from sending the
    /// slot's message. Must not have side effects. Returns `None` if the store cannot be read, as
    /// does the provided method.
    ///
    /// Context: task; may sleep.
    fn read_back(&self, slot: u16) -> Option<SlotState> {
        let _ = slot;
        None
    }
    /// Returns a mask that can be used in hard-IRQ context, if the store has one.
    fn fast_mask(&self) -> Option<&dyn FastMask> {
        None
    }
}

/// A mask that can be written in hard-IRQ context.
pub trait FastMask: Sync {
    /// Masks the slot's vector. After the call, the device sends no message for this vector.
    ///
    /// Context: any.
    fn mask(&self, slot: u16);
    /// Unmasks the slot's vector.
    ///
    /// Context: any.
    fn unmask(&self, slot: u16);
    /// Returns `true` if the mask is holding back a message.
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
    fn an_address_above_4_gib_is_refused_for_32_bit_msi() {
        let message = MsiMessage { address: 0x1_0000_0040, data: 1 };
        assert_eq!(
            MSI32.check(message),
            Err(MsiError::AddressTooWide { address: 0x1_0000_0040, bits: 32 })
        );
    }

    #[test]
    fn data_wider_than_16_bits_is_refused_for_pci_msi() {
        let message = MsiMessage { address: 0x40, data: 0x1_0000 };
        assert_eq!(MSI32.check(message), Err(MsiError::DataTooWide { data: 0x1_0000, bits: 16 }));
    }

    #[test]
    fn the_widest_32_bit_msi_message_is_accepted() {
        assert_eq!(MSI32.check(MsiMessage { address: 0xffff_ffff, data: 0xffff }), Ok(()));
    }
}
