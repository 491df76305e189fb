//! Register frames of the distributor and the redistributors: per-interrupt fields, and waits for
//! the Register Write Pending bit (`RWP`), which is 1 until earlier writes have taken effect.

use crate::{Block, GicError, Mmio, MmioExt, Platform, wait_until};
use doorbell_fallible::lock::IrqLock;
use gic_arch::{ArchRevision, IntId, IntIdClass, IntIdField, IntIdRange, gicd, gicr, id};

/// A mapped frame, the GIC block it belongs to, and a lock for read-modify-write registers.
#[derive(Debug)]
pub(crate) struct Frame<M> {
    pub(crate) mmio: M,
    pub(crate) block: Block,
    pub(crate) fields_lock: IrqLock<()>,
    /// Aliases for reading shared-interrupt registers, if an erratum requires them.
    pub(crate) aliases: Option<ChipAliases<M>>,
}

/// Per-chip aliases of the distributor (NVIDIA erratum T241-FABRIC-4). An SPI's registers must be
/// read through the alias of the chip that owns the SPI, and written through the distributor
/// itself.
#[derive(Debug)]
pub(crate) struct ChipAliases<M>(pub(crate) [Option<M>; 4]);

impl<M> ChipAliases<M> {
    /// Returns the alias of the chip that owns an SPI. Each chip owns 320 consecutive SPIs; the
    /// fourth also owns the extended SPIs.
    fn of(&self, intid: IntId) -> Option<&M> {
        let chip = match intid.class() {
            IntIdClass::Spi => (intid.get() - IntId::SPI_BASE) / 320,
            IntIdClass::ExtendedSpi => 3,
            _ => return None,
        };
        self.0.get(chip as usize)?.as_ref()
    }
}

/// Returns `true` if the distributor belongs to a GICv3 or later. Reads `GICD_TYPER`, which has the
/// same offset in both versions. On a GICv3 its `IDbits` is at least 9, because INTIDs reach 1023
/// (IHI 0069 §12.9, `GICD_TYPER`); on a GICv2 the field is reserved and reads as zero (IHI 0048B
/// §4.3.2). `PIDR2` can't be read first: on a GICv3 it lies beyond the end of a GICv2's frame, and
/// the GICv2 offset is reserved on a GICv3, where reading it may abort (Cavium erratum 38539).
pub(crate) fn is_v3_or_later<M: Mmio>(distributor: &M) -> bool {
    distributor.read(gicd::TYPER).id_bits_minus_one() != 0
}

impl<M: Mmio> Frame<M> {
    /// Accepts a frame if its `PIDR2` identifies a GICv3 or GICv4.
    pub(crate) fn probe(mmio: M, block: Block) -> Result<Self, GicError> {
        match mmio.read(id::PIDR2).revision() {
            ArchRevision::V3 | ArchRevision::V4 => {
                Ok(Self { mmio, block, fields_lock: IrqLock::new(()), aliases: None })
            }
            found => Err(GicError::WrongRevision { block, found }),
        }
    }

    /// Accepts a distributor frame if its `PIDR2` identifies a GICv2 or GICv1. Bit 31 of its `CTLR`
    /// is not `RWP` and reads as zero; writes take effect immediately.
    pub(crate) fn probe_v2(mmio: M, block: Block) -> Result<Self, GicError> {
        match mmio.read(gicd::GICV2_PIDR2).revision() {
            ArchRevision::V1 | ArchRevision::V2 => {
                Ok(Self { mmio, block, fields_lock: IrqLock::new(()), aliases: None })
            }
            found => Err(GicError::WrongRevision { block, found }),
        }
    }

    /// Returns the frame through which an interrupt's registers must be read.
    pub(crate) fn reads(&self, intid: IntId) -> &M {
        self.aliases.as_ref().and_then(|aliases| aliases.of(intid)).unwrap_or(&self.mmio)
    }

    /// Waits until all writes that `RWP` tracks have taken effect.
    pub(crate) fn wait_for_rwp<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.wait(platform, "RWP = 0", || !self.write_pending())
    }

    /// Waits until `done` returns `true`, or until the platform's time limit is reached.
    pub(crate) fn wait<P: Platform>(
        &self,
        platform: &P,
        what: &'static str,
        done: impl FnMut() -> bool,
    ) -> Result<(), GicError> {
        wait_until(platform, what, done).map_err(|_| GicError::TimedOut { block: self.block, what })
    }

    fn write_pending(&self) -> bool {
        match self.block {
            Block::Redistributor(_) => self.mmio.read(gicr::CTLR).rwp(),
            // `RWP` has the same position in every security view.
            Block::Distributor(_) | Block::CpuInterface => self.mmio.read(gicd::CTLR).rwp(),
        }
    }
}

/// Register arrays that hold the state of one range of interrupts.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) group: IntIdField,
    pub(crate) group_modifier: IntIdField,
    pub(crate) set_enable: IntIdField,
    pub(crate) clear_enable: IntIdField,
    pub(crate) set_pending: IntIdField,
    pub(crate) clear_pending: IntIdField,
    pub(crate) set_active: IntIdField,
    pub(crate) clear_active: IntIdField,
    pub(crate) priority: IntIdField,
    pub(crate) trigger: IntIdField,
}

impl Fields {
    /// SPIs, at the distributor.
    pub(crate) const SPI: Self = Self {
        group: gicd::IGROUPR,
        group_modifier: gicd::IGRPMODR,
        set_enable: gicd::ISENABLER,
        clear_enable: gicd::ICENABLER,
        set_pending: gicd::ISPENDR,
        clear_pending: gicd::ICPENDR,
        set_active: gicd::ISACTIVER,
        clear_active: gicd::ICACTIVER,
        priority: gicd::IPRIORITYR,
        trigger: gicd::ICFGR,
    };
    /// SPIs and the calling CPU's SGIs and PPIs, at a GICv2's distributor.
    pub(crate) const BANKED: Self = Self {
        group: gicd::IGROUPR.of_range(IntIdRange::Banked),
        // A GICv2 doesn't have this register, and uses its offset for a different one.
        group_modifier: IntIdField::at(gicd::IGRPMODR.offset(), 1, 0, IntIdRange::Banked),
        set_enable: gicd::ISENABLER.of_range(IntIdRange::Banked),
        clear_enable: gicd::ICENABLER.of_range(IntIdRange::Banked),
        set_pending: gicd::ISPENDR.of_range(IntIdRange::Banked),
        clear_pending: gicd::ICPENDR.of_range(IntIdRange::Banked),
        set_active: gicd::ISACTIVER.of_range(IntIdRange::Banked),
        clear_active: gicd::ICACTIVER.of_range(IntIdRange::Banked),
        priority: gicd::IPRIORITYR.of_range(IntIdRange::Banked),
        trigger: gicd::ICFGR.of_range(IntIdRange::Banked),
    };
    /// Extended SPIs, at the distributor.
    pub(crate) const EXTENDED_SPI: Self = Self {
        group: gicd::IGROUPR_E,
        group_modifier: gicd::IGRPMODR_E,
        set_enable: gicd::ISENABLER_E,
        clear_enable: gicd::ICENABLER_E,
        set_pending: gicd::ISPENDR_E,
        clear_pending: gicd::ICPENDR_E,
        set_active: gicd::ISACTIVER_E,
        clear_active: gicd::ICACTIVER_E,
        priority: gicd::IPRIORITYR_E,
        trigger: gicd::ICFGR_E,
    };
    /// SGIs, PPIs and extended PPIs, at a redistributor.
    pub(crate) const PRIVATE: Self = Self {
        group: gicr::IGROUPR,
        group_modifier: gicr::IGRPMODR,
        set_enable: gicr::ISENABLER,
        clear_enable: gicr::ICENABLER,
        set_pending: gicr::ISPENDR,
        clear_pending: gicr::ICPENDR,
        set_active: gicr::ISACTIVER,
        clear_active: gicr::ICACTIVER,
        priority: gicr::IPRIORITYR,
        trigger: gicr::ICFGR,
    };
}
