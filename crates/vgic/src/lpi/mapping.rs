//! Types that describe a mapping's ITS and device, and the reasons why mapping can fail. These
//! types don't depend on the rest of the LPI core.

use doorbell_fallible::OutOfMemory;

/// Number of an ITS among the machine's ITSes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ItsIndex(u16);

impl ItsIndex {
    pub(super) const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Returns the number.
    pub(crate) const fn get(self) -> u16 {
        self.0
    }
}

/// The reason why a mapping failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoRoom {
    /// The model's mapping budget is exhausted.
    Budget,
    /// The heap is exhausted.
    OutOfMemory,
}

impl From<OutOfMemory> for NoRoom {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// MAPD operands for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedDevice {
    /// Number of EventID bits.
    pub(crate) event_bits: u8,
    /// Bits 51:8 of the address of the device's interrupt translation table. The model doesn't
    /// store anything in the table.
    pub(crate) itt: u64,
}

impl MappedDevice {
    const ITT: u64 = 0x000f_ffff_ffff_ff00;

    /// Packs the operands into one nonzero integer.
    pub(super) const fn packed(self) -> u64 {
        self.itt & Self::ITT | self.event_bits as u64
    }

    /// Unpacks the result of [`packed`](Self::packed), or returns `None` for zero.
    pub(super) const fn unpacked(bits: u64) -> Option<Self> {
        let [event_bits, ..] = bits.to_le_bytes();
        if bits == 0 { None } else { Some(Self { event_bits, itt: bits & Self::ITT }) }
    }
}
