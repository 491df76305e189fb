//! Register frames of the distributor and the redistributors: per-interrupt fields, and waits for
//! the Register Write Pending bit (`RWP`), which is 1 until earlier writes have taken effect.
//!
//! Their state that is lost on power-down is saved as plain values in the caller's memory (no
//! heap). This is not a storage format: the same driver saves and restores it during one suspend.

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

    /// Reads the state of the 32 interrupts in `block`, starting at field 32 × `block`.
    pub(crate) fn save_block(&self, fields: &Fields, block: u32) -> InterruptBlock {
        InterruptBlock {
            group: self.word(fields.group, block),
            group_modifier: self.word(fields.group_modifier, block),
            enabled: self.word(fields.set_enable, block),
            pending: self.word(fields.set_pending, block),
            active: self.word(fields.set_active, block),
            priorities: self.words(fields.priority, block),
            triggers: self.words(fields.trigger, block),
        }
    }

    /// Writes back the saved state except for the enable bits. The block's interrupts must be
    /// disabled, and the disable must have taken effect.
    ///
    /// A level-triggered interrupt that was pending is made pending again, because the level of a
    /// message-based interrupt exists only in the pending bit. Other pending levels were
    /// [dropped](InterruptBlock::drop_levels).
    pub(crate) fn restore_block(&self, fields: &Fields, block: u32, saved: &InterruptBlock) {
        let InterruptBlock {
            group,
            group_modifier,
            enabled: _,
            pending,
            active,
            priorities,
            triggers,
        } = saved;
        self.set_word(fields.group, block, *group);
        self.set_word(fields.group_modifier, block, *group_modifier);
        self.set_words(fields.priority, block, priorities);
        self.set_words(fields.trigger, block, triggers);
        self.set_word(fields.clear_active, block, u32::MAX);
        self.set_word(fields.set_active, block, *active);
        self.set_word(fields.clear_pending, block, u32::MAX);
        self.set_word(fields.set_pending, block, *pending);
    }

    /// Enables the interrupts that were enabled when the block was saved.
    pub(crate) fn restore_enables(&self, fields: &Fields, block: u32, saved: &InterruptBlock) {
        self.set_word(fields.set_enable, block, saved.enabled);
    }

    /// Brings a block to a known state: all interrupts disabled, inactive, not pending,
    /// level-triggered, and in the same group with the same priority. The function does not wait
    /// for `RWP`.
    pub(crate) fn reset_block(&self, fields: &Fields, block: u32, defaults: BlockDefaults) {
        let BlockDefaults { priority, group, group_modifier } = defaults;
        self.disable_block(fields, block);
        self.set_word(fields.clear_active, block, u32::MAX);
        self.set_word(fields.clear_pending, block, u32::MAX);
        self.set_words(fields.priority, block, &[u32::from_ne_bytes([priority; 4]); 8]);
        self.set_words(fields.trigger, block, &[0; 2]);
        self.set_word(fields.group, block, group);
        self.set_word(fields.group_modifier, block, group_modifier);
    }

    /// Disables a block. The function does not wait for `RWP`.
    pub(crate) fn disable_block(&self, fields: &Fields, block: u32) {
        self.set_word(fields.clear_enable, block, u32::MAX);
    }

    fn word(&self, field: IntIdField, index: u32) -> u32 {
        let Some(register) = field.registers().get(index) else { return 0 };
        let first = field.range().intid_at(index * (u32::BITS / field.bits()));
        first.map_or(&self.mmio, |intid| self.reads(intid)).read(register)
    }

    fn words<const N: usize>(&self, field: IntIdField, block: u32) -> [u32; N] {
        let mut words = [0; N];
        for (word, register) in words.iter_mut().zip(block * field.bits()..) {
            *word = self.word(field, register);
        }
        words
    }

    fn set_word(&self, field: IntIdField, index: u32, value: u32) {
        if let Some(register) = field.registers().get(index) {
            self.mmio.write(register, value);
        }
    }

    fn set_words(&self, field: IntIdField, block: u32, values: &[u32]) {
        for (value, register) in values.iter().zip(block * field.bits()..) {
            self.set_word(field, register, *value);
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

/// State of 32 interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct InterruptBlock {
    group: u32,
    group_modifier: u32,
    enabled: u32,
    pending: u32,
    active: u32,
    priorities: [u32; 8],
    triggers: [u32; 2],
}

/// State of 32 shared interrupts, including routes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SharedBlock {
    pub(crate) interrupts: InterruptBlock,
    pub(crate) routes: [u64; 32],
}

/// State of a CPU's private interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PrivateState {
    pub(crate) blocks: [InterruptBlock; 3],
}

/// SGI bits in a CPU's block of private interrupts. SGIs are edge-triggered, regardless of the
/// value of `ICFGR0`.
pub(crate) const SGIS: u32 = 0xffff;

impl InterruptBlock {
    /// Drops the pending state of all level-triggered interrupts except those in `kept`. A line
    /// that is still asserted will make its interrupt pending again.
    pub(crate) fn drop_levels(&mut self, kept: u32) {
        let [low, high] = self.triggers.map(u64::from);
        let is_edge = |bit: &u32| (high << 32 | low) >> (2 * bit + 1) & 1 != 0;
        let edges = (0..u32::BITS).filter(is_edge).fold(0, |edges, bit| edges | 1 << bit);
        self.pending &= edges | kept;
    }
}

/// State to which [`Frame::reset_block`] resets each of 32 interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockDefaults {
    pub(crate) priority: u8,
    pub(crate) group: u32,
    pub(crate) group_modifier: u32,
}
