//! The LPI tables in memory (IHI 0069 §5.1): the configuration table, which all redistributors
//! share, and the pending tables, one per redistributor.

use crate::{Lpi, Priority};
use bitfield_struct::bitfield;

/// Minimum number of INTID bits of a GIC with LPIs.
pub const MIN_ID_BITS: u8 = 14;
/// Alignment of a configuration table in bytes.
pub const CONFIG_TABLE_ALIGNMENT: u64 = 0x1000;
/// Alignment of a pending table in bytes.
pub const PENDING_TABLE_ALIGNMENT: u64 = 0x1_0000;
/// Size in bytes of the implementation-defined start of a pending table. INTIDs below 8192 have no
/// pending bits in the table.
pub const PENDING_TABLE_RESERVED: u64 = 0x400;

/// An LPI's configuration byte.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Config {
    /// The LPI is forwarded if it is pending.
    pub enable: bool,
    /// RES1.
    #[bits(1, default = true)]
    pub res1: bool,
    /// Bits 7:2 of the priority. With two security states, this is the Non-secure view of the
    /// priority.
    #[bits(6)]
    pub priority_7_2: u8,
}

impl Config {
    /// Returns the priority. The two low bits of the priority are zero.
    pub const fn priority(self) -> Priority {
        Priority::new(self.priority_7_2() << 2)
    }

    /// Returns the configuration with this priority. The two low bits of `priority` are dropped.
    pub const fn with_priority(self, priority: Priority) -> Self {
        self.with_priority_7_2(priority.get() >> 2)
    }
}

/// Returns the size in bytes of a configuration table for INTIDs with `id_bits` bits. Returns 0 if
/// this allows no LPIs or exceeds 32 bits.
pub const fn config_table_bytes(id_bits: u8) -> u64 {
    if id_bits < MIN_ID_BITS || id_bits > 32 { 0 } else { (1 << id_bits) - 8192 }
}

/// Returns the size in bytes of a pending table for INTIDs with `id_bits` bits. Returns 0 if this
/// allows no LPIs or exceeds 32 bits.
pub const fn pending_table_bytes(id_bits: u8) -> u64 {
    if id_bits < MIN_ID_BITS || id_bits > 32 { 0 } else { (1 << id_bits) / 8 }
}

/// Returns the offset of an LPI's configuration byte in the table.
pub const fn config_offset(lpi: Lpi) -> u64 {
    lpi.index() as u64
}

/// Returns the location of an LPI's pending bit: the offset of the byte in the table, and the
/// number of the bit.
pub const fn pending_location(lpi: Lpi) -> (u64, u8) {
    (lpi.get() as u64 / 8, lpi.get().to_le_bytes()[0] % 8)
}
