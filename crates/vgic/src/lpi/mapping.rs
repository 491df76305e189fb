//! The terms of a mapping: its ITS, its device, and the reasons why a mapping can fail. They do not
//! depend on any other part of the LPI core.

use doorbell_fallible::OutOfMemory;

/// The number of an ITS, among those that share redistributors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ItsIndex(u16);

impl ItsIndex {
    pub(super) const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Returns the number.
    pub(super) const fn get(self) -> u16 {
        self.0
    }
}

/// The reason why a mapping failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoRoom {
    /// The model's budget for mappings is exhausted.
    Budget,
    /// The heap has no memory left.
    OutOfMemory,
}

impl From<OutOfMemory> for NoRoom {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// The operands of MAPD for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedDevice {
    /// Number of bits of its EventIDs.
    pub(crate) event_bits: u8,
    /// Address of its interrupt translation table, bits 51:8. The model stores nothing in the
    /// table.
    pub(crate) itt: u64,
}

impl MappedDevice {
    const ITT: u64 = 0x000f_ffff_ffff_ff00;

    /// Packs the operands into one nonzero integer.
    pub(super) const fn packed(self) -> u64 {
        self.itt & Self::ITT | self.event_bits as u64
    }

    /// Unpacks the operands from [`packed`](Self::packed); `None` if the integer is zero.
    pub(super) const fn unpacked(bits: u64) -> Option<Self> {
        let [event_bits, ..] = bits.to_le_bytes();
        if bits == 0 { None } else { Some(Self { event_bits, itt: bits & Self::ITT }) }
    }
}
