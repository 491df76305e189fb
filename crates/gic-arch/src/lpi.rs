//! The LPI tables in memory (IHI 0069 §5.1): configuration, shared by all redistributors, and
//! pending, one each.

use crate::{Lpi, Priority};
use bitfield_struct::bitfield;

/// Fewest INTID bits with which there are LPIs.
pub const MIN_ID_BITS: u8 = 14;
/// Alignment of a configuration table in bytes.
pub const CONFIG_TABLE_ALIGNMENT: u64 = 0x1000;
/// Alignment of a pending table in bytes.
pub const PENDING_TABLE_ALIGNMENT: u64 = 0x1_0000;
/// The first bytes of a pending table belong to the implementation: INTIDs below 8192 have no bits.
pub const PENDING_TABLE_RESERVED: u64 = 0x400;

/// An LPI's configuration byte.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Config {
    /// The LPI is forwarded when pending.
    pub enable: bool,
    /// RES1.
    #[bits(1, default = true)]
    pub res1: bool,
    /// Bits 7:2 of the priority. With two security states, a Non-secure one.
    #[bits(6)]
    pub priority_7_2: u8,
}

impl Config {
    /// The priority; its two low bits are 0.
    pub const fn priority(self) -> Priority {
        Priority::new(self.priority_7_2() << 2)
    }

    /// With this priority, its two low bits dropped.
    pub const fn with_priority(self, priority: Priority) -> Self {
        self.with_priority_7_2(priority.get() >> 2)
    }
}

/// Bytes of a configuration table for INTIDs of `id_bits` bits (at most 32); 0 if there are no
/// LPIs.
pub const fn config_table_bytes(id_bits: u8) -> u64 {
    if id_bits < MIN_ID_BITS || id_bits > 32 { 0 } else { (1 << id_bits) - 8192 }
}

/// Bytes of a pending table for INTIDs of `id_bits` bits (at most 32); 0 if there are no LPIs.
pub const fn pending_table_bytes(id_bits: u8) -> u64 {
    if id_bits < MIN_ID_BITS || id_bits > 32 { 0 } else { (1 << id_bits) / 8 }
}

/// Returns the offset of an LPI's configuration byte from the table's base.
pub const fn config_offset(lpi: Lpi) -> u64 {
    lpi.index() as u64
}

/// Returns the location of an LPI's pending bit: the byte from the table's base, and the bit in it.
pub const fn pending_location(lpi: Lpi) -> (u64, u8) {
    (lpi.get() as u64 / 8, lpi.get().to_le_bytes()[0] % 8)
}
