//! The capability's registers, including which bits a guest can write.

use crate::config_space::BusMaster;
use crate::saved_state::{MsiState, StateError, VERSION, check_version};
use msi_types::pci::msi::{self, Layout, vector_data};
use msi_types::pci::msix;

/// A capability's fixed properties: the read-only bits, which determine its layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiLayout {
    /// Base-2 logarithm of the number of vectors that the function supports (0 to 5).
    pub log2_vectors: u8,
    /// `true` if the address has 64 bits.
    pub address_64: bool,
    /// `true` if the capability has mask and pending bits.
    pub per_vector_masking: bool,
}

/// Length of the longest capability, in bytes.
const LENGTH: usize = 24;
const MAX_LOG2: u8 = 5;
/// Offset of the next-capability pointer in a capability's header.
const NEXT: usize = 1;

/// A capability's registers, except for the pending bits, which are part of the vectors.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    layout: Layout,
    log2_capable: u8,
    bytes: [u8; LENGTH],
    writable: [u8; LENGTH],
}

impl Registers {
    /// Creates the registers in their reset state. Returns `None` if the number of vectors is too
    /// large.
    pub(super) fn new(layout: MsiLayout, next: u8) -> Option<Self> {
        let MsiLayout { log2_vectors, address_64, per_vector_masking } = layout;
        if log2_vectors > MAX_LOG2 {
            return None;
        }
        let control = msi::Control::new()
            .with_multiple_message_capable(log2_vectors)
            .with_address_64(address_64)
            .with_per_vector_masking(per_vector_masking);
        let layout = Layout::new(control);
        let (bytes, writable) = ([0; LENGTH], [0; LENGTH]);
        let mut registers = Self { layout, log2_capable: log2_vectors, bytes, writable };
        registers.bytes[0] = msi::CAPABILITY_ID;
        registers.bytes[NEXT] = next;
        put(&mut registers.bytes, msi::CONTROL, control.into_bits().to_le_bytes());
        registers.allow();
        Some(registers)
    }

    /// Marks the writable bits.
    fn allow(&mut self) {
        let control = msi::Control::new().with_enable(true).with_multiple_message_enable(0b111);
        let writable = &mut self.writable;
        put(writable, msi::CONTROL, control.into_bits().to_le_bytes());
        put(writable, msi::ADDRESS_LOW, (!0b11u32).to_le_bytes());
        if let Some(high) = self.layout.address_high() {
            put(writable, high, [0xff; 4]);
        }
        put(writable, self.layout.data(), [0xff; 2]);
        if let Some(mask) = self.layout.mask() {
            let vectors = u32::MAX >> (32 - (1u32 << self.log2_capable));
            put(writable, mask, vectors.to_le_bytes());
        }
    }

    pub(super) fn reset(&mut self) {
        for (byte, writable) in self.bytes.iter_mut().zip(self.writable) {
            *byte &= !writable;
        }
    }

    pub(super) fn length(&self) -> u16 {
        self.layout.length()
    }

    /// Returns the number of vectors that the function can use.
    pub(super) fn vectors(&self) -> u16 {
        1 << self.log2_capable
    }

    /// Returns `true` if an access covers pending bits.
    pub(super) fn has_pending(&self, offset: u16, length: usize) -> bool {
        let end = usize::from(offset) + length;
        let bits = self.layout.pending().map(usize::from);
        bits.is_some_and(|at| usize::from(offset) < at + 4 && at < end)
    }

    /// Returns the registers' saved state.
    pub(super) fn state(&self, pending: u32, bus_master: BusMaster) -> MsiState {
        let word = |at| u32::from_le_bytes(get(&self.bytes, at));
        let high = self.layout.address_high().map_or(0, word);
        MsiState {
            version: VERSION,
            control: self.control().into_bits(),
            bus_master,
            address: u64::from(high) << 32 | u64::from(word(msi::ADDRESS_LOW)),
            data: self.data(),
            masks: self.layout.mask().map_or(0, word),
            pending,
        }
    }

    /// Restores registers by writing the state as a guest would. Refuses the state unless the
    /// resulting registers match it.
    pub(super) fn restored(&self, state: &MsiState) -> Result<Self, StateError> {
        let MsiState { version, control, address, data, masks, pending, bus_master: _ } = *state;
        check_version(version)?;
        let mut restored = self.clone();
        restored.reset();
        restored.write(msi::CONTROL, &control.to_le_bytes());
        restored.write(msi::ADDRESS_LOW, &address.to_le_bytes()[..4]);
        if let Some(high) = self.layout.address_high() {
            restored.write(high, &address.to_le_bytes()[4..]);
        }
        restored.write(self.layout.data(), &data.to_le_bytes());
        if let Some(mask) = self.layout.mask() {
            restored.write(mask, &masks.to_le_bytes());
        }
        restored.same_as(state)?;
        if u64::from(pending) >> self.vectors() != 0 {
            return Err(StateError::ReservedBits {
                register: "Pending Bits",
                value: pending.into(),
            });
        }
        Ok(restored)
    }

    /// Returns an error unless the state matches these registers, which were restored from it.
    fn same_as(&self, state: &MsiState) -> Result<(), StateError> {
        let here = self.state(state.pending, state.bus_master);
        if here.control != state.control {
            let (saved, here) = (state.control, here.control);
            return Err(StateError::OtherFunction { saved, entries: 0, here });
        }
        let reserved = |register, value| Err(StateError::ReservedBits { register, value });
        if here.address != state.address {
            return reserved("Message Address", state.address);
        }
        if here.masks != state.masks {
            return reserved("Mask Bits", state.masks.into());
        }
        Ok(())
    }

    /// Reads the part of an access that is in the capability.
    pub(super) fn read(&self, pending: u32, offset: u16, bytes: &mut [u8]) {
        let mut all = self.bytes;
        if let Some(at) = self.layout.pending() {
            put(&mut all, at, pending.to_le_bytes());
        }
        let present = all.iter().take(self.length().into()).skip(offset.into());
        bytes.iter_mut().zip(present).for_each(|(byte, register)| *byte = *register);
    }

    /// Writes the part of an access that is in the capability. Returns `true` if a bit changed.
    pub(super) fn write(&mut self, offset: u16, bytes: &[u8]) -> bool {
        let before = self.bytes;
        let registers = self.bytes.iter_mut().zip(self.writable).skip(offset.into());
        for ((register, writable), byte) in registers.zip(bytes) {
            *register = *register & !writable | byte & writable;
        }
        self.limit_grant();
        self.bytes != before
    }

    /// Limits the number of granted vectors to the supported number.
    fn limit_grant(&mut self) {
        let control = self.control();
        let granted = control.multiple_message_enable().min(self.log2_capable);
        let control = control.with_multiple_message_enable(granted);
        put(&mut self.bytes, msi::CONTROL, control.into_bits().to_le_bytes());
    }

    pub(super) fn control(&self) -> msi::Control {
        msi::Control::from_bits(u16::from_le_bytes(get(&self.bytes, msi::CONTROL)))
    }

    /// Returns the base-2 logarithm of the number of granted vectors, or `None` while MSI is
    /// disabled.
    pub(super) fn log2_granted(&self) -> Option<u8> {
        let control = self.control();
        control.enable().then(|| control.multiple_message_enable())
    }

    /// Returns the message data that the driver stored.
    pub(super) fn data(&self) -> u16 {
        u16::from_le_bytes(get(&self.bytes, self.layout.data()))
    }

    pub(super) fn table_control(&self) -> msix::Control {
        msix::Control::new().with_enable(self.control().enable())
    }

    /// Returns a vector as an MSI-X table entry.
    pub(super) fn entry(&self, vector: u16) -> [u32; 4] {
        let word = |at| u32::from_le_bytes(get(&self.bytes, at));
        let granted = self.control().multiple_message_enable();
        let data = vector_data(self.data().into(), granted, vector);
        let masks = self.layout.mask().map_or(0, word);
        let masked = masks >> vector & 1 != 0 || vector >> granted != 0;
        let control = msix::VectorControl::new().with_masked(masked);
        let high = self.layout.address_high().map_or(0, word);
        [word(msi::ADDRESS_LOW), high, data, control.into_bits()]
    }
}

fn put<const N: usize>(registers: &mut [u8; LENGTH], at: u16, value: [u8; N]) {
    registers.iter_mut().skip(at.into()).zip(value).for_each(|(byte, new)| *byte = new);
}

fn get<const N: usize>(registers: &[u8; LENGTH], at: u16) -> [u8; N] {
    let mut value = [0; N];
    value.iter_mut().zip(registers.iter().skip(at.into())).for_each(|(byte, old)| *byte = *old);
    value
}
