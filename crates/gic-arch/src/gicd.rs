//! The distributor, `GICD_*` (IHI 0069 §12.9): one frame of 64 KiB.

use crate::per_intid::IntIdRange::{ExtendedSpi, Spi};
use crate::reg::{register_frame, register_values};
use crate::{
    Affinity, Iidr, IntId, IntIdClass, IntIdField, ReadOnly, ReadWrite, Reg, RegArray, WriteOnly,
};
use bitfield_struct::bitfield;

/// Size of the frame in bytes.
pub const FRAME_SIZE: u64 = 0x1_0000;
/// Size of a GICv2's frame in bytes: everything up to [`SPENDSGIR`], and its own identification
/// registers.
pub const GICV2_FRAME_SIZE: u64 = 0x1000;
/// `PIDR2` of a GICv2's frame.
pub const GICV2_PIDR2: Reg<crate::Pidr2, ReadOnly> = Reg::at(0x0fe8);

register_frame! {
    /// Every register of the frame but the identification registers, by ascending offset.
    REGISTERS;
    /// Control: enables, affinity routing, security. Its layout depends on the view, see [`Ctlr`]
    /// and [`CtlrNs`].
    CTLR: Reg<Ctlr> = Reg::at(0x0000);
    /// Implemented features.
    TYPER: Reg<Typer, ReadOnly> = Reg::at(0x0004);
    /// Implementer.
    IIDR: Reg<Iidr, ReadOnly> = Reg::at(0x0008);
    /// Implemented features, continued (GICv4.1; RES0 before).
    TYPER2: Reg<u32, ReadOnly> = Reg::at(0x000c);
    /// Access errors; write 1 to clear.
    STATUSR: Reg<Statusr> = Reg::at(0x0010);
    /// Message-based SPI, Non-secure: makes the INTID written pending.
    SETSPI_NSR: Reg<u32, WriteOnly> = Reg::at(0x0040);
    /// Message-based SPI, Non-secure: removes the pending state of the INTID written.
    CLRSPI_NSR: Reg<u32, WriteOnly> = Reg::at(0x0048);
    /// Message-based SPI, Secure: makes the INTID written pending. Ignored with one security state.
    SETSPI_SR: Reg<u32, WriteOnly> = Reg::at(0x0050);
    /// Message-based SPI, Secure: removes the pending state of the INTID written.
    CLRSPI_SR: Reg<u32, WriteOnly> = Reg::at(0x0058);
    /// Group: 1 = Group 1 (with two security states: Non-secure Group 1).
    IGROUPR: IntIdField = IntIdField::at(0x0080, 1, 1024, Spi);
    /// Enable; write 1 to set.
    ISENABLER: IntIdField = IntIdField::at(0x0100, 1, 1024, Spi);
    /// Enable; write 1 to clear.
    ICENABLER: IntIdField = IntIdField::at(0x0180, 1, 1024, Spi);
    /// Pending; write 1 to set.
    ISPENDR: IntIdField = IntIdField::at(0x0200, 1, 1024, Spi);
    /// Pending; write 1 to clear.
    ICPENDR: IntIdField = IntIdField::at(0x0280, 1, 1024, Spi);
    /// Active; write 1 to set.
    ISACTIVER: IntIdField = IntIdField::at(0x0300, 1, 1024, Spi);
    /// Active; write 1 to clear.
    ICACTIVER: IntIdField = IntIdField::at(0x0380, 1, 1024, Spi);
    /// Priority, 8 bits each; byte accesses are allowed.
    IPRIORITYR: IntIdField = IntIdField::at(0x0400, 8, 1024, Spi);
    /// Targets without affinity routing; RES0 with it.
    ITARGETSR: IntIdField = IntIdField::at(0x0800, 8, 1024, Spi);
    /// Trigger, 2 bits each: the upper one is 1 for edge.
    ICFGR: IntIdField = IntIdField::at(0x0c00, 2, 1024, Spi);
    /// Group modifier (two security states): 1 with group 0 = Secure Group 1.
    IGRPMODR: IntIdField = IntIdField::at(0x0d00, 1, 1024, Spi);
    /// Non-secure access control, 2 bits each (two security states).
    NSACR: IntIdField = IntIdField::at(0x0e00, 2, 1024, Spi);
    /// SGI without affinity routing; RES0 with it.
    SGIR: Reg<u32, WriteOnly> = Reg::at(0x0f00);
    /// SGI pending without affinity routing, write 1 to clear; RES0 with it.
    CPENDSGIR: RegArray<u32> = RegArray::at(0x0f10, 4);
    /// SGI pending without affinity routing, write 1 to set; RES0 with it.
    SPENDSGIR: RegArray<u32> = RegArray::at(0x0f20, 4);
    /// Group of extended SPIs.
    IGROUPR_E: IntIdField = IntIdField::at(0x1000, 1, 1024, ExtendedSpi);
    /// Enable of extended SPIs; write 1 to set.
    ISENABLER_E: IntIdField = IntIdField::at(0x1200, 1, 1024, ExtendedSpi);
    /// Enable of extended SPIs; write 1 to clear.
    ICENABLER_E: IntIdField = IntIdField::at(0x1400, 1, 1024, ExtendedSpi);
    /// Pending of extended SPIs; write 1 to set.
    ISPENDR_E: IntIdField = IntIdField::at(0x1600, 1, 1024, ExtendedSpi);
    /// Pending of extended SPIs; write 1 to clear.
    ICPENDR_E: IntIdField = IntIdField::at(0x1800, 1, 1024, ExtendedSpi);
    /// Active of extended SPIs; write 1 to set.
    ISACTIVER_E: IntIdField = IntIdField::at(0x1a00, 1, 1024, ExtendedSpi);
    /// Active of extended SPIs; write 1 to clear.
    ICACTIVER_E: IntIdField = IntIdField::at(0x1c00, 1, 1024, ExtendedSpi);
    /// Priority of extended SPIs.
    IPRIORITYR_E: IntIdField = IntIdField::at(0x2000, 8, 1024, ExtendedSpi);
    /// Trigger of extended SPIs.
    ICFGR_E: IntIdField = IntIdField::at(0x3000, 2, 1024, ExtendedSpi);
    /// Group modifier of extended SPIs.
    IGRPMODR_E: IntIdField = IntIdField::at(0x3400, 1, 1024, ExtendedSpi);
    /// Non-secure access control of extended SPIs.
    NSACR_E: IntIdField = IntIdField::at(0x3600, 2, 1024, ExtendedSpi);
    /// Routes; those of INTIDs 0–31 are RES0. See [`irouter`].
    IROUTER: RegArray<Irouter> = RegArray::at(0x6000, 1020);
    /// Routes of extended SPIs. See [`irouter`].
    IROUTER_E: RegArray<Irouter> = RegArray::at(0x8000, 1024);
}

/// The route register of a shared interrupt; `None` for any other.
pub const fn irouter(intid: IntId) -> Option<Reg<Irouter, ReadWrite>> {
    match intid.class() {
        IntIdClass::Spi => IROUTER.get(intid.get()),
        IntIdClass::ExtendedSpi => IROUTER_E.get(intid.get() - IntId::EXTENDED_SPI_BASE),
        _ => None,
    }
}

/// `GICD_CTLR` as a single-state system has it (`DS` = 1), or as Secure software sees it (`DS` =
/// 0).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// Group 0 is forwarded.
    pub enable_grp0: bool,
    /// Group 1 is forwarded; with two security states: Non-secure Group 1.
    pub enable_grp1: bool,
    /// Secure Group 1 is forwarded. RES0 with one security state.
    pub enable_grp1_s: bool,
    __: bool,
    /// Affinity routing; with two security states: of Secure interrupts.
    pub are: bool,
    /// Affinity routing of Non-secure interrupts. RES0 with one security state.
    pub are_ns: bool,
    /// One security state. Once set, stays set until reset.
    pub ds: bool,
    /// 1-of-N SPIs may wake PEs.
    pub e1nwf: bool,
    /// SGIs without active state (GICv4.1).
    pub n_as_sgi_req: bool,
    #[bits(22)]
    __: u32,
    /// A write to this register or to an `ICENABLER` is still taking effect.
    pub rwp: bool,
}

/// `GICD_CTLR` as Non-secure software sees it where two security states exist.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CtlrNs {
    /// Non-secure Group 1 is forwarded, used without affinity routing.
    pub enable_grp1: bool,
    /// Non-secure Group 1 is forwarded, used with affinity routing.
    pub enable_grp1a: bool,
    #[bits(2)]
    __: u8,
    /// Affinity routing of Non-secure interrupts.
    pub are_ns: bool,
    #[bits(26)]
    __: u32,
    /// A write to this register or to an `ICENABLER` is still taking effect.
    pub rwp: bool,
}

/// `GICD_TYPER`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// The highest SPI is 32 × (this + 1) − 1, at most 1019.
    #[bits(5)]
    pub it_lines_number: u8,
    /// PEs that can be used without affinity routing, minus one.
    #[bits(3)]
    pub cpu_number: u8,
    /// Extended SPIs are implemented.
    pub espi: bool,
    /// Non-maskable interrupts are implemented.
    pub nmi: bool,
    /// Two security states are implemented.
    pub security_extn: bool,
    /// Number of LPIs, see [`lpi_count`](Self::lpi_count).
    #[bits(5)]
    pub num_lpis: u8,
    /// Message-based SPIs: the `SETSPI`/`CLRSPI` registers work.
    pub mbis: bool,
    /// LPIs are implemented.
    pub lpis: bool,
    /// Direct injection of virtual LPIs (GICv4).
    pub dvis: bool,
    /// INTID bits, minus one.
    #[bits(5)]
    pub id_bits_minus_one: u8,
    /// Non-zero Aff3 is supported.
    pub a3v: bool,
    /// 1-of-N distribution is *not* supported.
    pub no_1_of_n: bool,
    /// SGIs reach Aff0 up to 255 (range selector).
    pub rss: bool,
    /// The highest extended SPI is 4096 + 32 × (this + 1) − 1.
    #[bits(5)]
    pub espi_range: u8,
}

impl Typer {
    /// First number after the implemented SPIs: 32 (none) to 1020.
    pub const fn spi_end(self) -> u32 {
        let end = 32 * (self.it_lines_number() as u32 + 1);
        if end > IntId::SPI_END { IntId::SPI_END } else { end }
    }

    /// First number after the implemented extended SPIs; 4096 if there are none.
    pub const fn extended_spi_end(self) -> u32 {
        if self.espi() {
            IntId::EXTENDED_SPI_BASE + 32 * (self.espi_range() as u32 + 1)
        } else {
            IntId::EXTENDED_SPI_BASE
        }
    }

    /// INTID bits: 1 to 32.
    pub const fn id_bits(self) -> u8 {
        self.id_bits_minus_one() + 1
    }

    /// Number of LPIs that the distributor supports: all INTIDs from 8192 on, or a power of two
    /// given by `num_LPIs`; 0 without LPIs.
    pub const fn lpi_count(self) -> u64 {
        if !self.lpis() {
            return 0;
        }
        let by_id_bits = (1u64 << self.id_bits()).saturating_sub(IntId::LPI_BASE as u64);
        match self.num_lpis() {
            0 => by_id_bits,
            n => {
                let limited = 1u64 << (n as u32 + 1);
                if limited < by_id_bits { limited } else { by_id_bits }
            }
        }
    }

    /// Does the distributor implement this SPI or extended SPI?
    pub const fn implements(self, intid: IntId) -> bool {
        match intid.class() {
            IntIdClass::Spi => intid.get() < self.spi_end(),
            IntIdClass::ExtendedSpi => intid.get() < self.extended_spi_end(),
            _ => false,
        }
    }
}

/// `GICx_STATUSR`: access errors, each bit write-1-to-clear.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Statusr {
    /// A reserved location was read.
    pub rrd: bool,
    /// A reserved location was written.
    pub wrd: bool,
    /// A write-only location was read.
    pub rwod: bool,
    /// A read-only location was written.
    pub wrod: bool,
    #[bits(28)]
    __: u32,
}

/// `GICD_IROUTER<n>`: where an SPI goes.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Irouter {
    /// Aff2.Aff1.Aff0 of the target.
    #[bits(24)]
    pub aff210: u32,
    #[bits(7)]
    __: u8,
    /// Any participating PE (1 of N); the affinity is ignored.
    pub any_participating: bool,
    /// Aff3 of the target.
    pub aff3: u8,
    #[bits(24)]
    __: u32,
}

impl Irouter {
    /// The route to one PE.
    pub const fn to(affinity: Affinity) -> Self {
        Self::from_bits(affinity.mpidr())
    }

    /// The PE that the affinity fields name.
    pub const fn affinity(self) -> Affinity {
        Affinity::from_mpidr(self.into_bits())
    }
}

register_values!(u32: Ctlr, CtlrNs, Typer, Statusr);
register_values!(u64: Irouter);
