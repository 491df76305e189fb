//! The ready bitmap's steps as separate symbols, for Arm's memory model.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]
#![expect(missing_docs, reason = "each function only calls the function that it is named after")]

use super::walk::LevelWalk;
use super::{ReadyBit, ReadyBitmap, TurnTable, Visit, Visitor};
use crate::lpi::entry::Level;
use crate::lpi::entry_table::Position;
use crate::sync::Ordering::SeqCst;

const LEVEL: Level = Level::new(0);

#[inline(never)]
pub fn set_ready(bitmap: &ReadyBitmap) {
    bitmap.set(LEVEL, Position::new(0));
}

struct Nothing;

impl Visitor for Nothing {
    type Output = ();
    const TAKES: bool = false;

    fn visit(&mut self, _: ReadyBit<'_>, _: Level, _: Position) -> Visit<()> {
        Visit::Stale
    }
}

#[inline(never)]
pub fn prune_leaf(bitmap: &ReadyBitmap, turns: &mut TurnTable) {
    let Some(tree) = bitmap.tree(LEVEL) else { return };
    let Some(page) = tree.page(0) else { return };
    LevelWalk::new(tree, LEVEL, turns, &mut Nothing).prune_leaf(page, 0);
}

#[inline(never)]
pub fn prune_summary(bitmap: &ReadyBitmap, turns: &mut TurnTable) {
    let Some(tree) = bitmap.tree(LEVEL) else { return };
    let Some(page) = tree.page(0) else { return };
    LevelWalk::new(tree, LEVEL, turns, &mut Nothing).prune_summary(page, 0);
}

/// Clears the level's bit in the mask, as the end of [`ReadyBitmap::walk`] does.
#[inline(never)]
pub fn clear_level(bitmap: &ReadyBitmap) {
    let Some(tree) = bitmap.tree(LEVEL) else { return };
    bitmap.mask.clear(1, || tree.top(0).bits() == 0);
}

#[inline]
pub(in crate::lpi) fn ready_bit(bitmap: &ReadyBitmap) -> ReadyBit<'_> {
    let page = bitmap.tree(LEVEL).and_then(|tree| tree.page(0));
    ReadyBit { leaf: page.expect("a page exists").leaf(0), bit: 1 }
}

#[inline(never)]
pub fn leaf_is_empty(bitmap: &ReadyBitmap) -> bool {
    let page = bitmap.tree(LEVEL).and_then(|tree| tree.page(0));
    page.is_none_or(|page| page.leaf(0).load(SeqCst) == 0)
}

#[inline(never)]
pub fn summary_is_empty(bitmap: &ReadyBitmap) -> bool {
    let page = bitmap.tree(LEVEL).and_then(|tree| tree.page(0));
    page.is_none_or(|page| page.summary.bits() == 0)
}

#[inline(never)]
pub fn top_is_empty(bitmap: &ReadyBitmap) -> bool {
    bitmap.tree(LEVEL).is_none_or(|tree| tree.top(0).bits() == 0)
}

#[inline(never)]
pub fn bitmap_is_empty(bitmap: &ReadyBitmap) -> bool {
    bitmap.is_empty()
}
