//! A ready bitmap in which a position is ready, for `interleavings`.

use super::ReadyBitmap;
use crate::lpi::entry::Level;
use crate::lpi::entry_table::Position;
use crate::wakeup::WakeupWord;
use alloc::sync::Arc;
use doorbell_fallible::OutOfMemory;

const LEVEL: Level = Level::new(0);
/// Position in the leaf after the first.
const OTHER: Position = Position::new(1);

/// A bitmap in which position 0 is ready.
pub(crate) struct Filled(ReadyBitmap);

impl Filled {
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        let bitmap = ReadyBitmap::new(128, Arc::new(WakeupWord::new()));
        bitmap.ensure(LEVEL, OTHER)?;
        bitmap.set(LEVEL, Position::new(0));
        Ok(Self(bitmap))
    }

    /// Clears the summary bit of the leaf, which the vCPU found empty before it was filled.
    pub(crate) fn unlink(&self) {
        if let Some(tree) = self.0.tree(LEVEL)
            && let Some(page) = tree.page(0)
        {
            tree.unlink(page, 0);
        }
    }

    /// Clears a ready bit in another leaf, as a command does.
    pub(crate) fn clear_other(&self) {
        let _ = self.0.clear(LEVEL, OTHER);
    }

    /// Returns `true` if all bits above the leaf are set.
    pub(crate) fn is_visible(&self) -> bool {
        let path = |tree: &super::LevelBitmap| {
            tree.top(0).bits() != 0 && tree.page(0).is_some_and(|page| page.summary.bits() & 1 != 0)
        };
        !self.0.is_empty() && self.0.tree(LEVEL).is_some_and(path)
    }
}
