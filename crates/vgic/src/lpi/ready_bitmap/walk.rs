//! Iteration over the entries whose ready bits are set, at all levels.

use super::{
    BIT_MASK, BitmapPage, FANOUT_BITS, LevelBitmap, ReadyBit, ReadyBitmap, Turn, TurnTable, Visit,
    Visitor, bit,
};
use crate::lpi::entry::Level;
use crate::lpi::entry_table::Position;
use crate::sync::Ordering::SeqCst;

impl ReadyBitmap {
    /// Visits the entries whose bits are set until the visitor finds one, highest priority first
    /// and only in the first `count` levels. Only one thread may iterate over a vCPU's bitmap at a
    /// time. Clears the summary bits of empty branches, except for the paths in `turns`.
    #[inline(never)]
    pub(in crate::lpi) fn walk<V: Visitor>(
        &self,
        count: u32,
        turns: &mut TurnTable,
        visitor: &mut V,
    ) -> Option<V::Output> {
        let mut levels = self.mask.bits() & levels_below(count);
        while levels != 0 {
            let level = Level::new(levels.trailing_zeros());
            let level_bit = levels & levels.wrapping_neg();
            let Some(tree) = self.tree(level) else {
                levels ^= level_bit;
                continue;
            };
            let mut walk = LevelWalk::new(tree, level, turns, visitor);
            if let Some(found) = walk.turn() {
                return Some(found);
            }
            let is_empty = |turns: &TurnTable| tree.is_empty_but_for(turns.of(level).leaf);
            let was_empty = is_empty(walk.turns);
            if !was_empty && let Some(found) = walk.others() {
                return Some(found);
            }
            if turns.last != level.index() && (was_empty || is_empty(turns)) {
                let leaf = turns.of(level).leaf;
                self.mask.clear(level_bit, || tree.is_empty_but_for(leaf));
            }
            levels ^= level_bit;
        }
        None
    }
}

/// Returns a mask with the bits of the first `count` levels.
#[inline]
fn levels_below(count: u32) -> u64 {
    1u64.checked_shl(count).map_or(u64::MAX, |end| end - 1)
}

/// Returns a mask for word `group` with the bits for all numbers starting at `first`.
#[inline]
const fn from(first: u32, group: u32) -> u64 {
    let start = group << FANOUT_BITS;
    if first <= start {
        u64::MAX
    } else if first - start <= BIT_MASK {
        u64::MAX << (first - start)
    } else {
        0
    }
}

/// An iteration over the ready entries at one priority level.
pub(super) struct LevelWalk<'a, V> {
    tree: &'a LevelBitmap,
    level: Level,
    turns: &'a mut TurnTable,
    visitor: &'a mut V,
}

impl<'a, V: Visitor> LevelWalk<'a, V> {
    #[inline(always)]
    pub(super) const fn new(
        tree: &'a LevelBitmap,
        level: Level,
        turns: &'a mut TurnTable,
        visitor: &'a mut V,
    ) -> Self {
        Self { tree, level, turns, visitor }
    }

    /// Visits the leaf whose turn it is, until the turn ends.
    #[inline(always)]
    fn turn(&mut self) -> Option<V::Output> {
        let Turn { leaf, next, left } = self.turns.of(self.level);
        if left == 0 {
            return None;
        }
        self.leaf(self.tree.page(leaf >> FANOUT_BITS)?, leaf, next)
    }

    /// Visits all leaves in cyclic order, starting after the current leaf.
    #[inline(never)]
    fn others(&mut self) -> Option<V::Output> {
        let next = self.turns.of(self.level).leaf.wrapping_add(1);
        self.leaves(next).or_else(|| self.leaves(0))
    }

    /// Visits the leaves starting at this number.
    fn leaves(&mut self, first: u32) -> Option<V::Output> {
        for top in first >> (2 * FANOUT_BITS)..self.tree.top_count {
            let mut summaries = self.tree.top(top).bits() & from(first >> FANOUT_BITS, top);
            while summaries != 0 {
                let summary = (top << FANOUT_BITS) | summaries.trailing_zeros();
                if let Some(page) = self.tree.page(summary) {
                    if let Some(found) = self.page(page, summary, first) {
                        return Some(found);
                    }
                    self.prune_summary(page, summary);
                }
                summaries &= summaries - 1;
            }
        }
        None
    }

    fn page(&mut self, page: &BitmapPage, summary: u32, first: u32) -> Option<V::Output> {
        let mut leaves = page.summary.bits() & from(first, summary);
        while leaves != 0 {
            let leaf = (summary << FANOUT_BITS) | leaves.trailing_zeros();
            if let Some(found) = self.leaf(page, leaf, 0) {
                return Some(found);
            }
            self.prune_leaf(page, leaf);
            leaves &= leaves - 1;
        }
        None
    }

    /// Visits the bits of a leaf in cyclic order, starting at `first`.
    #[inline(always)]
    fn leaf(&mut self, page: &BitmapPage, leaf: u32, first: u8) -> Option<V::Output> {
        let word = page.leaf(leaf);
        let first = u32::from(first) & BIT_MASK;
        let mut bits = word.load(SeqCst).rotate_right(first);
        while bits != 0 {
            let at = (first + bits.trailing_zeros()) & BIT_MASK;
            let ready_bit = ReadyBit { leaf: word, bit: bit(at) };
            let position = Position::at(leaf, at);
            let at = at.to_le_bytes()[0];
            match self.visitor.visit(ready_bit, self.level, position) {
                Visit::Found(found) => {
                    self.found(leaf, at, V::TAKES);
                    return Some(found);
                }
                Visit::Taken if self.found(leaf, at, true) == 0 => return None,
                Visit::Taken | Visit::Stale => {}
            }
            bits &= bits - 1;
        }
        None
    }

    /// Records that the iteration found an entry at a bit of a leaf. See [`TurnTable::found`].
    #[inline]
    fn found(&mut self, leaf: u32, at: u8, takes: bool) -> u8 {
        let before = self.turns.of(self.level).leaf;
        let left = self.turns.found(self.level, leaf, at, takes);
        if before != leaf {
            self.prune(before);
        }
        left
    }

    /// Prunes a leaf whose turn has ended. Otherwise, each leaf that acknowledgments empty would
    /// stay set until the round-robin returns to it, and a single iteration might visit all of
    /// them.
    #[inline(never)]
    fn prune(&self, leaf: u32) {
        let summary = leaf >> FANOUT_BITS;
        if let Some(page) = self.tree.page(summary) {
            self.prune_leaf(page, leaf);
            self.prune_summary(page, summary);
        }
    }

    /// Clears an empty leaf's bit in its summary, unless this is the leaf that was found last.
    pub(super) fn prune_leaf(&self, page: &BitmapPage, leaf: u32) {
        if self.turns.is_leaf(self.level, leaf) || page.leaf(leaf).load(SeqCst) != 0 {
            return;
        }
        self.tree.unlink(page, leaf);
    }

    /// Clears a summary word's bit in the top word once the summary word is empty.
    pub(super) fn prune_summary(&self, page: &BitmapPage, summary: u32) {
        let is_empty = || page.summary.bits() == 0;
        if is_empty() {
            self.tree.top(summary >> FANOUT_BITS).clear(bit(summary), is_empty);
        }
    }
}
