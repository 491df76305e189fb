//! The virtual LPI frame, VLPI_base, of redistributors with `GICR_TYPER.VLPIS` (IHI 0069 §12.11).
//! All offsets here are relative to VLPI_base.

use crate::reg::{register_frame, register_values};
use crate::{Cacheability, OuterCacheability, Reg, Shareability};
use bitfield_struct::bitfield;

register_frame! {
    /// All registers that the driver uses, in ascending order of their offsets.
    REGISTERS;
    /// Location of the configuration table of virtual LPIs (GICv4.0) or of the vPE table (GICv4.1).
    VPROPBASER: Reg<Vpropbaser> = Reg::at(0x0070);
    /// State of the resident vPE and, in GICv4.0, the location of its pending table.
    VPENDBASER: Reg<Vpendbaser> = Reg::at(0x0078);
}

/// Value of `GICR_VPROPBASER` in the layout of GICv4.0, except for [`valid`](Self::valid).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vpropbaser {
    /// Number of INTID bits that the table covers, minus one.
    #[bits(5)]
    pub id_bits_minus_one: u8,
    #[bits(2)]
    __: u8,
    /// Inner cacheability of accesses to the table.
    #[bits(3)]
    pub inner_cache: Cacheability,
    /// Shareability of accesses to the table.
    #[bits(2)]
    pub shareability: Shareability,
    /// Bits 51:12 of the table's physical address.
    #[bits(40)]
    pub address_51_12: u64,
    #[bits(4)]
    __: u8,
    /// Outer cacheability of accesses to the table.
    #[bits(3)]
    pub outer_cache: OuterCacheability,
    #[bits(4)]
    __: u8,
    /// The redistributor uses the table (GICv4.1).
    pub valid: bool,
}

/// Value of `GICR_VPENDBASER` in the layout of GICv4.0. [`dirty`](Self::dirty) and the higher bits
/// are also valid in GICv4.1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vpendbaser {
    #[bits(7)]
    __: u8,
    /// Inner cacheability of accesses to the table.
    #[bits(3)]
    pub inner_cache: Cacheability,
    /// Shareability of accesses to the table.
    #[bits(2)]
    pub shareability: Shareability,
    #[bits(4)]
    __: u8,
    /// Bits 51:16 of the pending table's physical address.
    #[bits(36)]
    pub address_51_16: u64,
    #[bits(4)]
    __: u8,
    /// Outer cacheability of accesses to the table.
    #[bits(3)]
    pub outer_cache: OuterCacheability,
    __: bool,
    /// The last change of `valid` is still taking effect. Read-only.
    pub dirty: bool,
    /// Virtual interrupts were pending when the vPE became non-resident. In GICv4.1, software
    /// writes 1 while it clears `valid` to suppress the doorbell.
    pub pending_last: bool,
    /// In GICv4.0, the bit indicates that the first part of the pending table may be invalid. In
    /// GICv4.1, it requests a doorbell.
    pub idai: bool,
    /// A vPE is resident, so the redistributor reads and writes its pending table.
    pub valid: bool,
}

impl Vpropbaser {
    /// Returns the value with the table at `address`. Bits 11:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_12((address >> 12) & 0xff_ffff_ffff)
    }

    /// Returns the table's address.
    pub const fn address(self) -> u64 {
        self.address_51_12() << 12
    }
}

impl Vpendbaser {
    /// Returns the value with the table at `address`. Bits 15:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_16((address >> 16) & 0xf_ffff_ffff)
    }

    /// Returns the pending table's address.
    pub const fn address(self) -> u64 {
        self.address_51_16() << 16
    }
}

register_values!(u64: Vpropbaser, Vpendbaser);
