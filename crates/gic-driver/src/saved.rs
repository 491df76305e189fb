//! Distributor and redistributor state that is lost on power-down, as plain values in the caller's
//! memory (no heap). This is not a storage format: the same driver saves and restores it during one
//! suspend.

use crate::frame::{Fields, Frame};
use crate::{Mmio, MmioExt};
use gic_arch::IntIdField;

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

impl<M: Mmio> Frame<M> {
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

/// State to which [`Frame::reset_block`] resets each of 32 interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockDefaults {
    pub(crate) priority: u8,
    pub(crate) group: u32,
    pub(crate) group_modifier: u32,
}
