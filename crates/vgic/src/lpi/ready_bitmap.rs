//! A vCPU's ready bitmap: for each priority level, one bit per entry with two layers of summaries,
//! and a mask of levels. False positives are harmless. A ready entry's bit can only be clear after
//! a writer has stored the entry and before it has set the bit, or until a command that
//! [clears](ReadyBitmap::clear) bits has looked at the entry again and kicked its vCPU.
//!
//! ```text
//! mask (64 levels) ─▶ top ─▶ summary ─▶ leaf ─▶ entry
//! ```

#[cfg(all(test, shuttle))]
pub(crate) mod filled;
mod place;
mod walk;

use super::entry::{LEVELS, Level};
use super::entry_table::Position;
use crate::sync::summary::Summary;
use crate::sync::{AtomicU64, Ordering::SeqCst};
use crate::wakeup::WakeupWord;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::num::NonZero;
use core::ops::ControlFlow;
use doorbell_fallible::{OnceBox, OutOfMemory, try_box, try_page, try_page_table};

const FANOUT_BITS: u32 = 6;
/// Number of positions whose leaves share one summary and one page.
pub(super) const ENTRIES_PER_SUMMARY: u32 = 1 << (2 * FANOUT_BITS);
const BIT_MASK: u32 = (1 << FANOUT_BITS) - 1;

const fn bit(index: u32) -> u64 {
    1 << (index & BIT_MASK)
}

/// One vCPU's bitmap. The struct is aligned so that vCPUs don't share a cache line.
#[repr(align(128))]
pub(super) struct ReadyBitmap {
    mask: Summary,
    entries: u32,
    /// The vCPU's wake-up word, which a message reads next.
    pub(super) word: Arc<WakeupWord>,
    levels: [OnceBox<[LevelBitmap; 1]>; LEVELS],
}

/// The bits for one level. Most vCPUs only use few entries, so [`ReadyBitmap::ensure`] allocates
/// the pages of leaves on demand.
struct LevelBitmap {
    pages: Box<[OnceBox<[BitmapPage; 1]>]>,
    /// Words above the summaries, of which only the first `top_count` are used.
    tops: [Summary; TOPS],
    top_count: u32,
}

/// Maximum number of positions in a bitmap.
pub(super) const MAX_POSITIONS: u32 = 5 << 20;
/// Number of top words that [`MAX_POSITIONS`] needs.
const TOPS: usize = (MAX_POSITIONS >> (3 * FANOUT_BITS)) as usize;

/// The leaves under one summary: 4096 entries.
struct BitmapPage {
    summary: Summary,
    leaves: [AtomicU64; 1 << FANOUT_BITS],
}

impl BitmapPage {
    fn new() -> Self {
        Self { summary: Summary::new(), leaves: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn leaf(&self, index: u32) -> &AtomicU64 {
        &self.leaves[(index & BIT_MASK) as usize]
    }
}

impl LevelBitmap {
    fn new(entries: u32) -> Result<Self, OutOfMemory> {
        let pages = entries.div_ceil(1 << (2 * FANOUT_BITS));
        let tops = [const { Summary::new() }; TOPS];
        Ok(Self {
            pages: try_page_table(pages)?,
            tops,
            top_count: pages.div_ceil(1 << FANOUT_BITS),
        })
    }

    fn ensure(&self, position: Position) -> Result<(), OutOfMemory> {
        match self.pages.get((position.get() >> (2 * FANOUT_BITS)) as usize) {
            Some(page) => Ok(try_page(page, BitmapPage::new)?),
            None => Ok(()),
        }
    }

    /// Returns a summary's page, or `None` if it was never allocated.
    fn page(&self, summary: u32) -> Option<&BitmapPage> {
        self.pages.get(summary as usize)?.get().map(|[page]| page)
    }

    #[inline]
    fn top(&self, index: u32) -> &Summary {
        &self.tops[index as usize]
    }

    /// Returns `true` if the leaf is empty and no bit is set except on the path to it.
    fn is_empty_but_for(&self, leaf: u32) -> bool {
        let summary = leaf >> FANOUT_BITS;
        let is_on_path = |index| summary >> FANOUT_BITS == index;
        (0..self.top_count).all(|index| {
            let path = if is_on_path(index) { bit(summary) } else { 0 };
            self.top(index).bits() & !path == 0
        }) && self.is_leaf_empty_and_alone(leaf)
    }

    fn is_leaf_empty_and_alone(&self, leaf: u32) -> bool {
        self.page(leaf >> FANOUT_BITS).is_none_or(|page| {
            page.summary.bits() & !bit(leaf) == 0 && page.leaf(leaf).load(SeqCst) == 0
        })
    }

    /// Returns `true` if no bit is set except on the path to the leaf, which is on the page. The
    /// result may be a false negative.
    #[inline(always)]
    fn has_none_beside(&self, page: &BitmapPage, leaf: u32) -> bool {
        self.top_count == 1
            && page.summary.bits() & !bit(leaf) == 0
            && self.top(0).bits() & !bit(leaf >> FANOUT_BITS) == 0
    }

    /// Clears the bit of a leaf that was found empty. If the leaf has been filled in the meantime,
    /// sets its whole path again, because a command may have cleared the upper layers since.
    #[inline]
    fn unlink(&self, page: &BitmapPage, leaf: u32) {
        if page.summary.clear(bit(leaf), || page.leaf(leaf).load(SeqCst) == 0) {
            let summary = leaf >> FANOUT_BITS;
            self.top(summary >> FANOUT_BITS).set(bit(summary));
        }
    }
}

/// Result of clearing a ready bit from outside the vCPU.
#[derive(Clone, Copy)]
pub(super) struct Cleared {
    /// `true` if the bit was set, or if nothing can set it.
    pub(super) was_set: bool,
    /// `true` if bits that other writers set in the meantime were invisible to the vCPU for a
    /// moment. Callers must then kick the vCPU.
    pub(super) hid_others: bool,
}

/// Result of visiting an entry.
pub(super) enum Visit<T> {
    /// The visitor found an entry, and the iteration ends with this result.
    Found(T),
    /// The entry was taken, and the iteration continues.
    Taken,
    /// The ready bit was stale, and the iteration continues.
    Stale,
}

/// Operation on the entries whose ready bits are set.
pub(super) trait Visitor {
    /// Result of the iteration.
    type Output;
    /// `true` if the visitor takes the entries that it finds.
    const TAKES: bool;
    /// Examines the entry at `position`, and keeps or clears its ready bit.
    fn visit(
        &mut self,
        ready_bit: ReadyBit<'_>,
        level: Level,
        position: Position,
    ) -> Visit<Self::Output>;
}

/// A ready bit in its leaf word.
pub(super) struct ReadyBit<'a> {
    leaf: &'a AtomicU64,
    bit: u64,
}

impl ReadyBit<'_> {
    /// Clears the bit. The caller must check the entry afterwards.
    pub(super) fn clear(&self) {
        self.leaf.fetch_and(!self.bit, SeqCst);
    }
}

/// Number of entries to take from one leaf before moving on to the next. The limit equals the
/// number of bits in a leaf, so that every LPI that was ready at the start of the turn is taken.
const TURN: u8 = 1 << FANOUT_BITS;

/// Marker for "no leaf". The leaf that follows this marker is the first leaf.
const NO_LEAF: u32 = u32::MAX;

/// Position of the round-robin at a priority level, over the leaves and over the bits in a leaf.
///
/// A ready LPI doesn't starve among LPIs of the same priority. A leaf's turn ends after [`TURN`]
/// LPIs have been taken or when the leaf is empty. Bits within a leaf, and the leaves themselves,
/// are visited in cyclic order. Therefore, at most as many other LPIs of its level as the tree has
/// bits are taken before an LPI whose ready bit is set.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// The current leaf, or [`NO_LEAF`] before the first turn.
    leaf: u32,
    /// The bit in the current leaf to visit first.
    next: u8,
    /// Number of LPIs that may still be taken in this turn.
    left: u8,
}

/// The leaves in which a vCPU found its last interrupt, per level and overall. We leave the paths
/// to these leaves set even if they are empty, because the next interrupt most often comes from the
/// same leaf. At each level, the path from the top word to the leaf stays set; in the mask, only
/// the bit of the level that was found last does. We clear the other levels' mask bits, because
/// each would cost an additional check on the way to a lower-priority level.
#[derive(Clone, Debug)]
pub(super) struct TurnTable {
    by_level: [Turn; LEVELS],
    /// Index of the level that was found last, or [`LEVELS`] if there is none.
    last: usize,
}

impl TurnTable {
    /// Creates a table in which no leaf has been found yet.
    pub(super) const fn new() -> Self {
        Self { by_level: [Turn { leaf: NO_LEAF, next: 0, left: 0 }; LEVELS], last: LEVELS }
    }

    fn of(&self, level: Level) -> Turn {
        self.by_level[level.index()]
    }

    fn is_leaf(&self, level: Level, leaf: u32) -> bool {
        self.of(level).leaf == leaf
    }

    /// Stops preserving the mask bit for the level that was found last. The next iteration clears
    /// the bit if it finds the level empty.
    pub(super) const fn forget_last(&mut self) {
        self.last = LEVELS;
    }

    /// Records that an iteration found an entry at a bit of a leaf. If the entry was not taken, the
    /// next iteration visits the same bit first. Returns the number of LPIs that may still be taken
    /// in this turn.
    #[inline]
    fn found(&mut self, level: Level, leaf: u32, bit: u8, takes: bool) -> u8 {
        let turn = &mut self.by_level[level.index()];
        if turn.leaf != leaf || turn.left == 0 {
            (turn.leaf, turn.left) = (leaf, TURN);
        }
        turn.next = bit + u8::from(takes);
        turn.left -= u8::from(takes);
        self.last = level.index();
        turn.left
    }
}

impl ReadyBitmap {
    /// Creates a bitmap over this many entries. Levels are allocated by [`ensure`](Self::ensure).
    pub(super) const fn new(entries: u32, word: Arc<WakeupWord>) -> Self {
        Self { mask: Summary::new(), entries, word, levels: [const { OnceBox::new() }; LEVELS] }
    }

    /// Allocates the bits for the entry at `position` and `level`. Must be called before the entry
    /// is moved to that level. Must not be called on the hot path.
    pub(super) fn ensure(&self, level: Level, position: Position) -> Result<(), OutOfMemory> {
        let tree = self.levels[level.index()]
            .get_or_try_init(|| Ok::<_, OutOfMemory>(try_box(LevelBitmap::new(self.entries)?)?))?;
        tree[0].ensure(position)
    }

    /// Returns `true` if no level's bit is set.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.mask.bits() == 0
    }

    #[inline]
    fn tree(&self, level: Level) -> Option<&LevelBitmap> {
        self.levels[level.index()].get().map(|[tree]| tree)
    }

    /// Sets the ready bit of the entry at `position`. Always writes the leaf, but its parents only
    /// if their bits are clear.
    #[inline]
    pub(super) fn set(&self, level: Level, position: Position) {
        if !self.set_in_leaf(level, position) {
            self.link(level, position);
        }
    }

    /// Sets only the bit in the leaf. Returns `false` if [`link`](Self::link) must follow.
    #[inline(always)]
    pub(super) fn set_in_leaf(&self, level: Level, position: Position) -> bool {
        let Some(tree) = self.tree(level) else { return true };
        let leaf = position.leaf();
        let summary = leaf >> FANOUT_BITS;
        let Some(page) = tree.page(summary) else { return true };
        page.leaf(leaf).fetch_or(position.bit(), SeqCst);
        page.summary.has(bit(leaf))
            && tree.top(summary >> FANOUT_BITS).has(bit(summary))
            && self.mask.has(1 << level.index())
    }

    /// Sets the bits on the path to the leaf of a position.
    #[cold]
    #[inline(never)]
    pub(super) fn link(&self, level: Level, position: Position) {
        let (leaf, tree) = (position.leaf(), self.tree(level));
        let summary = leaf >> FANOUT_BITS;
        let Some((tree, page)) = tree.and_then(|tree| Some((tree, tree.page(summary)?))) else {
            return;
        };
        page.summary.set(bit(leaf));
        tree.top(summary >> FANOUT_BITS).set(bit(summary));
        self.mask.set(1 << level.index());
    }

    /// Clears the ready bit of an entry that a command has changed, and the summary bits of the
    /// branches that this leaves empty. The vCPU may be iterating at the same time. Callers must
    /// check the entry afterwards.
    pub(super) fn clear(&self, level: Level, position: Position) -> Cleared {
        let leaf = position.leaf();
        let summary = leaf >> FANOUT_BITS;
        let Some((tree, page)) =
            self.tree(level).and_then(|tree| Some((tree, tree.page(summary)?)))
        else {
            return Cleared { was_set: true, hid_others: false };
        };
        let (word, top) = (page.leaf(leaf), tree.top(summary >> FANOUT_BITS));
        let before = word.fetch_and(!position.bit(), SeqCst);
        let was_set = before & position.bit() != 0;
        if before & !position.bit() != 0 {
            return Cleared { was_set, hid_others: false };
        }
        page.summary.clear(bit(leaf), || word.load(SeqCst) == 0);
        let is_empty = || page.summary.bits() == 0;
        let had_none = is_empty();
        if had_none {
            top.clear(bit(summary), is_empty);
        }
        // The vCPU may have found an upper layer empty while a bit below it was clear, so a bit
        // that was set again needs its whole path.
        let has_any = !is_empty();
        if has_any {
            top.set(bit(summary));
            self.mask.set(1 << level.index());
        }
        Cleared { was_set, hid_others: word.load(SeqCst) != 0 || (had_none && has_any) }
    }

    /// Returns the number of ready bits at all levels, and of leaves whose summary bits are set.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn count(&self) -> (u32, u32) {
        let trees = self.levels.iter().filter_map(|level| level.get().map(|[tree]| tree));
        let pages = trees.flat_map(|tree| tree.pages.iter().filter_map(|page| page.get()));
        pages.fold((0, 0), |(bits, leaves), [page]| {
            let set: u32 = page.leaves.iter().map(|leaf| leaf.load(SeqCst).count_ones()).sum();
            (bits + set, leaves + page.summary.bits().count_ones())
        })
    }

    /// Fast path of a [`walk`](Self::walk): visits the entries in the leaf whose turn it is at the
    /// highest level, if `admits` returns `true` for this level and the leaf's page is before the
    /// page that starts at position `end`. Breaks if the visitor has found an entry, or if no bit
    /// is set elsewhere. Otherwise, a walk must follow.
    #[inline(always)]
    pub(super) fn first<V: Visitor>(
        &self,
        admits: impl FnOnce(Level) -> bool,
        end: impl FnOnce() -> u32,
        turns: &mut TurnTable,
        visitor: &mut V,
    ) -> ControlFlow<Option<V::Output>> {
        let Some(levels) = NonZero::new(self.mask.bits()) else {
            return ControlFlow::Break(None);
        };
        let number = levels.trailing_zeros();
        let level = Level::new(number);
        if !admits(level) {
            return ControlFlow::Break(None);
        }
        let TurnTable { by_level, last } = turns;
        let turn = &mut by_level[level.index()];
        let (leaf, first) = (turn.leaf, u32::from(turn.next));
        let Some(tree) = self.tree(level) else { return ControlFlow::Continue(()) };
        let Some(page) = tree.page(leaf >> FANOUT_BITS) else { return ControlFlow::Continue(()) };
        let word = page.leaf(leaf);
        let Some(mut bits) = NonZero::new(word.load(SeqCst).rotate_right(first)) else {
            return ControlFlow::Continue(());
        };
        if leaf << FANOUT_BITS >= end() {
            return ControlFlow::Continue(());
        }
        let base = Position::first_in(leaf);
        loop {
            let at = (first + bits.trailing_zeros()) & BIT_MASK;
            let position = base.at_bit(at);
            if turn.left == 0 {
                return ControlFlow::Continue(());
            }
            let visit = visitor.visit(ReadyBit { leaf: word, bit: bit(at) }, level, position);
            if let Visit::Stale = visit {
                return ControlFlow::Continue(());
            }
            turn.next = at.to_le_bytes()[0] + u8::from(V::TAKES);
            turn.left -= u8::from(V::TAKES);
            *last = level.index();
            if let Visit::Found(found) = visit {
                return ControlFlow::Break(Some(found));
            }
            let Some(others) = NonZero::new(bits.get() & (bits.get() - 1)) else { break };
            bits = others;
        }
        if self.mask.bits() >> number == 1 && tree.has_none_beside(page, leaf) {
            ControlFlow::Break(None)
        } else {
            ControlFlow::Continue(())
        }
    }
}
