//! The distributor, `GICD_*` (IHI 0069 §12.9): one frame of 64 KiB.

use crate::per_intid::IntIdRange::{ExtendedSpi, Spi};
use crate::reg::{register_frame, register_values};
use crate::{
    Affinity, Iidr, IntId, IntIdClass, IntIdField, ReadOnly, ReadWrite, Reg, RegArray, WriteOnly,
};
use bitfield_struct::bitfield;

/// Size of the frame in bytes.
pub const FRAME_SIZE: u64 = 0x1_0000;
/// Size of a GICv2's frame in bytes. The frame contains the registers up to [`SPENDSGIR`] and the
/// identification registers of a GICv2.
pub const GICV2_FRAME_SIZE: u64 = 0x1000;
/// `PIDR2` in a GICv2's frame.
pub const GICV2_PIDR2: Reg<crate::Pidr2, ReadOnly> = Reg::at(0x0fe8);

register_frame! {
    /// All registers of the frame except the identification registers, in ascending order of their
    /// offsets.
    REGISTERS;
    /// Control register for enables, affinity routing and security. Its layout depends on the
    /// security view; see [`Ctlr`] and [`CtlrNs`].
    CTLR: Reg<Ctlr> = Reg::at(0x0000);
    /// Implemented features.
    TYPER: Reg<Typer, ReadOnly> = Reg::at(0x0004);
    /// Identification of the implementer and revision.
    IIDR: Reg<Iidr, ReadOnly> = Reg::at(0x0008);
    /// Additional implemented features (GICv4.1; RES0 in earlier versions).
    TYPER2: Reg<u32, ReadOnly> = Reg::at(0x000c);
    /// Access errors; writing 1 to a bit clears it.
    STATUSR: Reg<Statusr> = Reg::at(0x0010);
    /// Sets the pending state of the SPI whose INTID is written (message-based SPI, Non-secure).
    SETSPI_NSR: Reg<u32, WriteOnly> = Reg::at(0x0040);
    /// Clears the pending state of the SPI whose INTID is written (message-based SPI, Non-secure).
    CLRSPI_NSR: Reg<u32, WriteOnly> = Reg::at(0x0048);
    /// Sets the pending state of the SPI whose INTID is written (message-based SPI, Secure). Writes
    /// are ignored in systems with one security state.
    SETSPI_SR: Reg<u32, WriteOnly> = Reg::at(0x0050);
    /// Clears the pending state of the SPI whose INTID is written (message-based SPI, Secure).
    CLRSPI_SR: Reg<u32, WriteOnly> = Reg::at(0x0058);
    /// Group bits; 1 selects Group 1 (with two security states, Non-secure Group 1).
    IGROUPR: IntIdField = IntIdField::at(0x0080, 1, 1024, Spi);
    /// Enable bits; writing 1 enables the interrupt.
    ISENABLER: IntIdField = IntIdField::at(0x0100, 1, 1024, Spi);
    /// Enable bits; writing 1 disables the interrupt.
    ICENABLER: IntIdField = IntIdField::at(0x0180, 1, 1024, Spi);
    /// Pending bits; writing 1 makes the interrupt pending.
    ISPENDR: IntIdField = IntIdField::at(0x0200, 1, 1024, Spi);
    /// Pending bits; writing 1 clears the pending state.
    ICPENDR: IntIdField = IntIdField::at(0x0280, 1, 1024, Spi);
    /// Active bits; writing 1 activates the interrupt.
    ISACTIVER: IntIdField = IntIdField::at(0x0300, 1, 1024, Spi);
    /// Active bits; writing 1 deactivates the interrupt.
    ICACTIVER: IntIdField = IntIdField::at(0x0380, 1, 1024, Spi);
    /// Priorities, with 8 bits for each interrupt; byte accesses are allowed.
    IPRIORITYR: IntIdField = IntIdField::at(0x0400, 8, 1024, Spi);
    /// Target CPUs, used without affinity routing; RES0 if affinity routing is enabled.
    ITARGETSR: IntIdField = IntIdField::at(0x0800, 8, 1024, Spi);
    /// Trigger modes, with 2 bits for each interrupt. If the upper bit is 1, the interrupt is
    /// edge-triggered.
    ICFGR: IntIdField = IntIdField::at(0x0c00, 2, 1024, Spi);
    /// Group modifier bits (two security states); 1 selects Secure Group 1 if the group bit is 0.
    IGRPMODR: IntIdField = IntIdField::at(0x0d00, 1, 1024, Spi);
    /// Non-secure access control, with 2 bits for each interrupt (two security states).
    NSACR: IntIdField = IntIdField::at(0x0e00, 2, 1024, Spi);
    /// Generates an SGI; RES0 if affinity routing is enabled.
    SGIR: Reg<u32, WriteOnly> = Reg::at(0x0f00);
    /// Pending bits of SGIs; writing 1 clears the pending state. RES0 if affinity routing is
    /// enabled.
    CPENDSGIR: RegArray<u32> = RegArray::at(0x0f10, 4);
    /// Pending bits of SGIs; writing 1 makes the SGI pending. RES0 if affinity routing is enabled.
    SPENDSGIR: RegArray<u32> = RegArray::at(0x0f20, 4);
    /// Group bits of extended SPIs.
    IGROUPR_E: IntIdField = IntIdField::at(0x1000, 1, 1024, ExtendedSpi);
    /// Enable bits of extended SPIs; writing 1 enables the interrupt.
    ISENABLER_E: IntIdField = IntIdField::at(0x1200, 1, 1024, ExtendedSpi);
    /// Enable bits of extended SPIs; writing 1 disables the interrupt.
    ICENABLER_E: IntIdField = IntIdField::at(0x1400, 1, 1024, ExtendedSpi);
    /// Pending bits of extended SPIs; writing 1 makes the interrupt pending.
    ISPENDR_E: IntIdField = IntIdField::at(0x1600, 1, 1024, ExtendedSpi);
    /// Pending bits of extended SPIs; writing 1 clears the pending state.
    ICPENDR_E: IntIdField = IntIdField::at(0x1800, 1, 1024, ExtendedSpi);
    /// Active bits of extended SPIs; writing 1 activates the interrupt.
    ISACTIVER_E: IntIdField = IntIdField::at(0x1a00, 1, 1024, ExtendedSpi);
    /// Active bits of extended SPIs; writing 1 deactivates the interrupt.
    ICACTIVER_E: IntIdField = IntIdField::at(0x1c00, 1, 1024, ExtendedSpi);
    /// Priorities of extended SPIs.
    IPRIORITYR_E: IntIdField = IntIdField::at(0x2000, 8, 1024, ExtendedSpi);
    /// Trigger modes of extended SPIs.
    ICFGR_E: IntIdField = IntIdField::at(0x3000, 2, 1024, ExtendedSpi);
    /// Group modifiers for extended SPIs.
    IGRPMODR_E: IntIdField = IntIdField::at(0x3400, 1, 1024, ExtendedSpi);
    /// Non-secure access control for extended SPIs.
    NSACR_E: IntIdField = IntIdField::at(0x3600, 2, 1024, ExtendedSpi);
    /// Routes of SPIs, see [`irouter`]. The registers of INTIDs 0–31 are RES0.
    IROUTER: RegArray<Irouter> = RegArray::at(0x6000, 1020);
    /// Routes of extended SPIs, see [`irouter`].
    IROUTER_E: RegArray<Irouter> = RegArray::at(0x8000, 1024);
}

/// Returns the route register of an SPI or extended SPI, or `None` for other INTIDs.
pub const fn irouter(intid: IntId) -> Option<Reg<Irouter, ReadWrite>> {
    match intid.class() {
        IntIdClass::Spi => IROUTER.get(intid.get()),
        IntIdClass::ExtendedSpi => IROUTER_E.get(intid.get() - IntId::EXTENDED_SPI_BASE),
        _ => None,
    }
}

/// Value of `GICD_CTLR` in systems with one security state (`DS` = 1), or as seen by Secure
/// software (`DS` = 0).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// Group 0 interrupts are forwarded.
    pub enable_grp0: bool,
    /// Group 1 interrupts are forwarded. With two security states, the bit applies to Non-secure
    /// Group 1.
    pub enable_grp1: bool,
    /// Secure Group 1 interrupts are forwarded. RES0 with one security state.
    pub enable_grp1_s: bool,
    __: bool,
    /// Affinity routing is enabled. With two security states, the bit applies to Secure interrupts.
    pub are: bool,
    /// Affinity routing is enabled for Non-secure interrupts. RES0 with one security state.
    pub are_ns: bool,
    /// Only one security state is supported. Once set, the bit stays set until reset.
    pub ds: bool,
    /// 1-of-N SPIs may wake PEs.
    pub e1nwf: bool,
    /// SGIs have no active state (GICv4.1).
    pub n_as_sgi_req: bool,
    #[bits(22)]
    __: u32,
    /// A write to this register or to an `ICENABLER` is still taking effect.
    pub rwp: bool,
}

/// Value of `GICD_CTLR` as seen by Non-secure software in systems with two security states.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CtlrNs {
    /// Non-secure Group 1 interrupts are forwarded if affinity routing is disabled.
    pub enable_grp1: bool,
    /// Non-secure Group 1 interrupts are forwarded if affinity routing is enabled.
    pub enable_grp1a: bool,
    #[bits(2)]
    __: u8,
    /// Affinity routing is enabled for Non-secure interrupts.
    pub are_ns: bool,
    #[bits(26)]
    __: u32,
    /// A write to this register or to an `ICENABLER` is still taking effect.
    pub rwp: bool,
}

/// Value of `GICD_TYPER`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// Encoded number of SPIs: the highest SPI is 32 × (this value + 1) − 1, but at most 1019.
    #[bits(5)]
    pub it_lines_number: u8,
    /// Number of PEs that can be used without affinity routing, minus one.
    #[bits(3)]
    pub cpu_number: u8,
    /// Extended SPIs are implemented.
    pub espi: bool,
    /// Non-maskable interrupts are implemented.
    pub nmi: bool,
    /// Two security states are implemented.
    pub security_extn: bool,
    /// Number of LPIs, encoded; see [`lpi_count`](Self::lpi_count).
    #[bits(5)]
    pub num_lpis: u8,
    /// Message-based SPIs are supported by the `SETSPI` and `CLRSPI` registers.
    pub mbis: bool,
    /// LPIs are implemented.
    pub lpis: bool,
    /// Direct injection of virtual LPIs is supported (GICv4).
    pub dvis: bool,
    /// Number of INTID bits, minus one.
    #[bits(5)]
    pub id_bits_minus_one: u8,
    /// Non-zero values of Aff3 are supported.
    pub a3v: bool,
    /// 1-of-N distribution is *not* supported.
    pub no_1_of_n: bool,
    /// SGIs can target Aff0 values up to 255 (range selector).
    pub rss: bool,
    /// Encoded number of extended SPIs: the highest extended SPI is 4096 + 32 × (this value + 1)
    /// − 1.
    #[bits(5)]
    pub espi_range: u8,
}

impl Typer {
    /// Returns the first INTID after the implemented SPIs, between 32 (no SPIs) and 1020.
    pub const fn spi_end(self) -> u32 {
        let end = 32 * (self.it_lines_number() as u32 + 1);
        if end > IntId::SPI_END { IntId::SPI_END } else { end }
    }

    /// Returns the first INTID after the implemented extended SPIs, which is 4096 if none is
    /// implemented.
    pub const fn extended_spi_end(self) -> u32 {
        if self.espi() {
            IntId::EXTENDED_SPI_BASE + 32 * (self.espi_range() as u32 + 1)
        } else {
            IntId::EXTENDED_SPI_BASE
        }
    }

    /// Returns the number of INTID bits, between 1 and 32.
    pub const fn id_bits(self) -> u8 {
        self.id_bits_minus_one() + 1
    }

    /// Returns the number of LPIs that the distributor supports: all INTIDs from 8192 on, unless
    /// `num_LPIs` limits their number to a power of two. Returns 0 if LPIs are not implemented.
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

    /// Returns `true` if the distributor implements this SPI or extended SPI.
    pub const fn implements(self, intid: IntId) -> bool {
        match intid.class() {
            IntIdClass::Spi => intid.get() < self.spi_end(),
            IntIdClass::ExtendedSpi => intid.get() < self.extended_spi_end(),
            _ => false,
        }
    }
}

/// Value of `GICx_STATUSR`, which records access errors. Each bit is write-1-to-clear.
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

/// Value of `GICD_IROUTER<n>`, which selects the target of an SPI.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Irouter {
    /// Aff2.Aff1.Aff0 of the target PE.
    #[bits(24)]
    pub aff210: u32,
    #[bits(7)]
    __: u8,
    /// The target is any participating PE (1-of-N); the affinity is ignored.
    pub any_participating: bool,
    /// Aff3 of the target PE.
    pub aff3: u8,
    #[bits(24)]
    __: u32,
}

impl Irouter {
    /// Returns the route to one PE.
    pub const fn to(affinity: Affinity) -> Self {
        Self::from_bits(affinity.mpidr())
    }

    /// Returns the affinity of the target PE.
    pub const fn affinity(self) -> Affinity {
        Affinity::from_mpidr(self.into_bits())
    }
}

register_values!(u32: Ctlr, CtlrNs, Typer, Statusr);
register_values!(u64: Irouter);
