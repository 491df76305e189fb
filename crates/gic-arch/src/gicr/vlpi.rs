//! The frame of virtual LPIs, VLPI_base, of redistributors with `GICR_TYPER.VLPIS` (IHI 0069
//! §12.11). All offsets here count from VLPI_base.

use crate::reg::{register_frame, register_values};
use crate::{Cacheability, OuterCacheability, Reg, Shareability};
use bitfield_struct::bitfield;

register_frame! {
    /// Every register that the driver uses, by ascending offset.
    REGISTERS;
    /// GICv4.0: the configuration table of virtual LPIs. GICv4.1: the table of vPEs.
    VPROPBASER: Reg<Vpropbaser> = Reg::at(0x0070);
    /// The resident vPE and, in GICv4.0, its pending table.
    VPENDBASER: Reg<Vpendbaser> = Reg::at(0x0078);
}

/// `GICR_VPROPBASER`, as GICv4.0 has it but for [`valid`](Self::valid).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vpropbaser {
    /// INTID bits that the table covers, minus one.
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
    /// GICv4.1: the redistributor uses the table.
    pub valid: bool,
}

/// `GICR_VPENDBASER`, as GICv4.0 has it; GICv4.1 has the same bits from [`dirty`](Self::dirty) on.
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
    /// Virtual interrupts were pending when the vPE became non-resident. GICv4.1: if software
    /// writes 1 while it clears `valid`, no doorbell is requested.
    pub pending_last: bool,
    /// GICv4.0: the first part of the pending table may be invalid. GICv4.1: a doorbell is
    /// requested.
    pub idai: bool,
    /// A vPE is resident: the redistributor reads and writes its pending table.
    pub valid: bool,
}

impl Vpendbaser {
    /// Returns the value with the table at `address`, of which bits 15:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_16((address >> 16) & 0xf_ffff_ffff)
    }
}

register_values!(u64: Vpropbaser, Vpendbaser);
