//! Configuration space as bytes, in which each bit is either read-only or writable by software.

use crate::bus::AccessWidth;
use irq_routing::msix::BusMaster;

/// Number of bytes that are implemented. The extended configuration space reads as zero.
const BYTES: usize = 256;
/// Offset of the first capability.
const FIRST_CAPABILITY: u16 = 0x40;

/// A function's 256 bytes of configuration space.
#[derive(Clone)]
pub(super) struct ConfigBytes {
    bytes: [u8; BYTES],
    writable: [u8; BYTES],
    /// Offset at which the last capability ends.
    end: u16,
    /// Offset of the byte that will hold the pointer to the next capability.
    link: u16,
}

impl ConfigBytes {
    pub(super) const fn new() -> Self {
        let link = super::header::CAPABILITIES;
        Self { bytes: [0; BYTES], writable: [0; BYTES], end: FIRST_CAPABILITY, link }
    }

    /// Adds a capability with `length` bytes and returns its offset.
    pub(super) fn add_capability(&mut self, id: u8, length: u16) -> u16 {
        let at = self.end;
        self.end = (at + length).next_multiple_of(4);
        self.store(self.link, AccessWidth::Byte, u32::from(at));
        self.store(at, AccessWidth::Byte, u32::from(id));
        self.link = at + 1;
        let status = self.load(super::header::STATUS, AccessWidth::Half);
        self.store(
            super::header::STATUS,
            AccessWidth::Half,
            status | u32::from(super::header::STATUS_CAPABILITIES),
        );
        at
    }

    /// Makes the bits in `mask` writable by software.
    pub(super) fn allow(&mut self, offset: u16, width: AccessWidth, mask: u32) {
        for (byte, mask) in
            self.writable.iter_mut().skip(usize::from(offset)).zip(bytes(width, mask))
        {
            *byte |= mask;
        }
    }

    /// Sets bytes on the device's behalf, including their read-only bits.
    pub(super) fn store(&mut self, offset: u16, width: AccessWidth, value: u32) {
        for (byte, value) in
            self.bytes.iter_mut().skip(usize::from(offset)).zip(bytes(width, value))
        {
            *byte = value;
        }
    }

    /// Performs a software write. Read-only bits are left unchanged.
    pub(super) fn write(&mut self, offset: u16, width: AccessWidth, value: u32) {
        let places = self.bytes.iter_mut().zip(&self.writable).skip(usize::from(offset));
        for ((byte, writable), value) in places.zip(bytes(width, value)) {
            *byte = *byte & !writable | value & writable;
        }
    }

    /// Reads bytes. Bytes beyond the end read as zero.
    pub(super) fn load(&self, offset: u16, width: AccessWidth) -> u32 {
        let mut value = [0; 4];
        let length = usize::from(offset)..usize::from(offset) + length(width);
        for (place, at) in value.iter_mut().zip(length) {
            *place = self.bytes.get(at).copied().unwrap_or(0);
        }
        u32::from_le_bytes(value)
    }

    /// Returns Bus Master Enable.
    pub(super) fn bus_master(&self) -> BusMaster {
        match self.load16(super::header::COMMAND) & super::header::COMMAND_MASTER {
            0 => BusMaster::Disabled,
            _ => BusMaster::Enabled,
        }
    }

    /// Reads 16 bits.
    pub(super) fn load16(&self, offset: u16) -> u16 {
        let [low, high, ..] = self.load(offset, AccessWidth::Half).to_le_bytes();
        u16::from_le_bytes([low, high])
    }
}

/// Returns the number of bytes that an access of this width transfers. A configuration access
/// covers at most four bytes.
pub(super) fn length(width: AccessWidth) -> usize {
    match width {
        AccessWidth::Byte => 1,
        AccessWidth::Half => 2,
        AccessWidth::Word | AccessWidth::Double => 4,
    }
}

fn bytes(width: AccessWidth, value: u32) -> impl Iterator<Item = u8> {
    value.to_le_bytes().into_iter().take(length(width))
}
