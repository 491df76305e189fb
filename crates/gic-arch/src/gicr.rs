//! The redistributors, `GICR_*` (IHI 0069 §12.10, §12.11). Each redistributor has two frames of 64
//! KiB, RD_base and SGI_base, and two more if it supports virtual LPIs ([`vlpi`] describes the
//! first of the additional frames). All offsets here are relative to RD_base.

pub mod vlpi;

use crate::per_intid::IntIdRange::Private;
use crate::reg::{register_frame, register_values};
use crate::{
    Affinity, Cacheability, Iidr, IntIdField, OuterCacheability, ReadOnly, Reg, Shareability,
    WriteOnly,
};
use bitfield_struct::bitfield;

/// Size of one frame in bytes.
pub const FRAME_SIZE: u64 = 0x1_0000;
/// Distance between redistributors without virtual LPIs, in bytes.
pub const STRIDE_V3: u64 = 2 * FRAME_SIZE;
/// Distance between redistributors with virtual LPIs, in bytes.
pub const STRIDE_V4: u64 = 4 * FRAME_SIZE;
/// Offset of SGI_base.
pub const SGI_BASE: u32 = 0x1_0000;
/// Offset of VLPI_base, if [`Typer::vlpis`] is set.
pub const VLPI_BASE: u32 = 0x2_0000;

register_frame! {
    /// All registers of both frames except the identification registers, in ascending order of
    /// their offsets.
    REGISTERS;
    /// Control register.
    CTLR: Reg<Ctlr> = Reg::at(0x0000);
    /// Identification of the implementer and revision.
    IIDR: Reg<Iidr, ReadOnly> = Reg::at(0x0004);
    /// Implemented features, and the PE that this redistributor belongs to.
    TYPER: Reg<Typer, ReadOnly> = Reg::at(0x0008);
    /// Access errors; writing 1 to a bit clears it.
    STATUSR: Reg<crate::gicd::Statusr> = Reg::at(0x0010);
    /// Power management. In systems with two security states, the register reads as zero for
    /// Non-secure software.
    WAKER: Reg<Waker> = Reg::at(0x0014);
    /// Maximum PARTID and PMG (GICv3.1 with MPAM).
    MPAMIDR: Reg<u32, ReadOnly> = Reg::at(0x0018);
    /// PARTID and PMG of table accesses (GICv3.1 with MPAM).
    PARTIDR: Reg<u32> = Reg::at(0x001c);
    /// Sets the pending state of the LPI whose INTID is written (direct LPI).
    SETLPIR: Reg<u64, WriteOnly> = Reg::at(0x0040);
    /// Clears the pending state of the LPI whose INTID is written (direct LPI).
    CLRLPIR: Reg<u64, WriteOnly> = Reg::at(0x0048);
    /// Location of the LPI configuration table.
    PROPBASER: Reg<Propbaser> = Reg::at(0x0070);
    /// Location of the LPI pending table.
    PENDBASER: Reg<Pendbaser> = Reg::at(0x0078);
    /// Invalidates the cached configuration of one LPI.
    INVLPIR: Reg<u64, WriteOnly> = Reg::at(0x00a0);
    /// Invalidates the cached configuration of all LPIs.
    INVALLR: Reg<u64, WriteOnly> = Reg::at(0x00b0);
    /// Status of invalidations.
    SYNCR: Reg<Syncr, ReadOnly> = Reg::at(0x00c0);
    /// Group bits; 1 selects Group 1.
    IGROUPR: IntIdField = IntIdField::at(SGI_BASE + 0x0080, 1, 96, Private);
    /// Enable bits; writing 1 enables the interrupt.
    ISENABLER: IntIdField = IntIdField::at(SGI_BASE + 0x0100, 1, 96, Private);
    /// Enable bits; writing 1 disables the interrupt.
    ICENABLER: IntIdField = IntIdField::at(SGI_BASE + 0x0180, 1, 96, Private);
    /// Pending bits; writing 1 makes the interrupt pending.
    ISPENDR: IntIdField = IntIdField::at(SGI_BASE + 0x0200, 1, 96, Private);
    /// Pending bits; writing 1 clears the pending state.
    ICPENDR: IntIdField = IntIdField::at(SGI_BASE + 0x0280, 1, 96, Private);
    /// Active bits; writing 1 activates the interrupt.
    ISACTIVER: IntIdField = IntIdField::at(SGI_BASE + 0x0300, 1, 96, Private);
    /// Active bits; writing 1 deactivates the interrupt.
    ICACTIVER: IntIdField = IntIdField::at(SGI_BASE + 0x0380, 1, 96, Private);
    /// Priorities, with 8 bits for each interrupt; byte accesses are allowed.
    IPRIORITYR: IntIdField = IntIdField::at(SGI_BASE + 0x0400, 8, 96, Private);
    /// Trigger modes, with 2 bits for each interrupt. If the upper bit is 1, the interrupt is
    /// edge-triggered. The fields of SGIs are read-only.
    ICFGR: IntIdField = IntIdField::at(SGI_BASE + 0x0c00, 2, 96, Private);
    /// Group modifier bits (two security states).
    IGRPMODR: IntIdField = IntIdField::at(SGI_BASE + 0x0d00, 1, 96, Private);
    /// Non-secure access control for SGIs, with 2 bits for each SGI (two security states).
    NSACR: Reg<u32> = Reg::at(SGI_BASE + 0x0e00);
}

/// Value of `GICR_CTLR`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// LPIs are enabled. An implementation may not support clearing this bit; see
    /// [`ces`](Self::ces).
    pub enable_lpis: bool,
    /// Clearing `EnableLPIs` is supported. If the bit is 0, software cannot determine whether
    /// clearing is supported. Read-only.
    pub ces: bool,
    /// `INVLPIR`, `INVALLR` and `SYNCR` are supported even if the redistributor is used with an
    /// ITS. Read-only.
    pub ir: bool,
    /// A write to this register or to an `ICENABLER` is still taking effect. Read-only.
    pub rwp: bool,
    #[bits(20)]
    __: u32,
    /// This PE is not selected for 1-of-N Group 0 interrupts.
    pub dpg0: bool,
    /// This PE is not selected for 1-of-N Non-secure Group 1 interrupts.
    pub dpg1_ns: bool,
    /// This PE is not selected for 1-of-N Secure Group 1 interrupts.
    pub dpg1_s: bool,
    #[bits(4)]
    __: u8,
    /// Upstream writes, such as SGI generation, are still in progress. Read-only.
    pub uwp: bool,
}

/// Value of `GICR_TYPER`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// Physical LPIs are implemented.
    pub plpis: bool,
    /// Virtual LPIs are implemented, and the redistributor has four frames.
    pub vlpis: bool,
    /// `GICR_VPENDBASER.Dirty` is implemented.
    pub dirty: bool,
    /// Direct LPIs are supported: `SETLPIR`, `CLRLPIR`, `INVLPIR`, `INVALLR` and `SYNCR` are
    /// implemented.
    pub direct_lpi: bool,
    /// This redistributor is the last of a contiguous region.
    pub last: bool,
    /// The `DPG` bits of [`Ctlr`] are supported.
    pub dpgs: bool,
    /// MPAM is supported (GICv3.1).
    pub mpam: bool,
    /// vPEIDs are shared (GICv4.1).
    pub rvpeid: bool,
    /// Number by which ITS commands identify this redistributor if `GITS_TYPER.PTA` is 0.
    pub processor_number: u16,
    /// Redistributors that share an LPI configuration table. 0: all redistributors; 1:
    /// redistributors with the same Aff3; 2: redistributors with the same Aff3.Aff2; 3:
    /// redistributors with the same Aff3.Aff2.Aff1.
    #[bits(2)]
    pub common_lpi_aff: u8,
    /// Virtual SGIs are supported (GICv4.1).
    pub vsgi: bool,
    /// Extended PPIs. 0: none; 1: up to INTID 1087; 2: up to INTID 1119.
    #[bits(5)]
    pub ppi_num: u8,
    /// Affinity of the PE, with Aff0 in the lowest byte. See [`affinity`](Self::affinity).
    pub affinity_value: u32,
}

impl Typer {
    /// Returns the affinity of the PE that this redistributor serves.
    pub const fn affinity(self) -> Affinity {
        Affinity::from_packed(self.affinity_value())
    }

    /// Returns the number of extended PPIs: 0, 32 or 64.
    pub const fn extended_ppi_count(self) -> u32 {
        match self.ppi_num() {
            1 => 32,
            2 => 64,
            _ => 0,
        }
    }

    /// Returns the distance to the next redistributor in bytes, for use if firmware does not
    /// specify it.
    pub const fn stride(self) -> u64 {
        if self.vlpis() { STRIDE_V4 } else { STRIDE_V3 }
    }
}

/// Value of `GICR_WAKER`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Waker {
    __: bool,
    /// Set by software before the PE sleeps. While the bit is set, the redistributor forwards no
    /// interrupts. The bit is set after reset.
    pub processor_sleep: bool,
    /// All interfaces to the PE are quiescent. Read-only.
    pub children_asleep: bool,
    #[bits(29)]
    __: u32,
}

/// Value of `GICR_PROPBASER`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Propbaser {
    /// Number of INTID bits that the table covers, minus one. Values below 13 cover no LPIs.
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
    #[bits(5)]
    __: u8,
}

impl Propbaser {
    /// Returns the physical address of the table, which is 4 KiB aligned.
    pub const fn address(self) -> u64 {
        self.address_51_12() << 12
    }

    /// Returns the value with the table at `address`. Bits 11:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_12((address >> 12) & 0xff_ffff_ffff)
    }

    /// Returns the number of INTID bits that the table covers, between 1 and 32.
    pub const fn id_bits(self) -> u8 {
        self.id_bits_minus_one() + 1
    }
}

/// Value of `GICR_PENDBASER`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Pendbaser {
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
    /// Bits 51:16 of the table's physical address.
    #[bits(36)]
    pub address_51_16: u64,
    #[bits(4)]
    __: u8,
    /// Outer cacheability of accesses to the table.
    #[bits(3)]
    pub outer_cache: OuterCacheability,
    #[bits(3)]
    __: u8,
    /// Set by software to indicate that the table contains only zeros when LPIs are enabled. Reads
    /// as 0.
    pub pending_table_zero: bool,
    __: bool,
}

impl Pendbaser {
    /// Returns the physical address of the table, which is 64 KiB aligned.
    pub const fn address(self) -> u64 {
        self.address_51_16() << 16
    }

    /// Returns the value with the table at `address`. Bits 15:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_16((address >> 16) & 0xf_ffff_ffff)
    }
}

/// Value of `GICR_SYNCR`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Syncr {
    /// An invalidation is in progress at this redistributor.
    pub busy: bool,
    #[bits(31)]
    __: u32,
}

register_values!(u32: Ctlr, Waker, Syncr);
register_values!(u64: Typer, Propbaser, Pendbaser);
