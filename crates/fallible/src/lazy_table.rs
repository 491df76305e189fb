//! A table that allocates its memory in chunks when items are first used.

use crate::try_collect;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use spin::Once;

/// A table with room for many items, which allocates memory for `CHUNK` of them at a time. Items
/// are read without a lock, and are never freed before the table.
#[derive(Debug)]
pub struct LazyTable<T, const CHUNK: usize> {
    chunks: Vec<Once<Vec<T>>>,
}

impl<T, const CHUNK: usize> LazyTable<T, CHUNK> {
    /// Creates a table for at least `length` items, without memory for any of them.
    ///
    /// # Errors
    /// Fails if the allocator has no memory for the list of chunks.
    pub fn try_new(length: usize) -> Result<Self, TryReserveError> {
        let chunks = core::iter::repeat_with(Once::new).take(length.div_ceil(CHUNK));
        Ok(Self { chunks: try_collect(chunks)? })
    }

    /// Allocates memory for the items at `indices`. Their initial values, and those of other items
    /// in the same chunks, come from `make`. Indices beyond the table are ignored.
    ///
    /// # Errors
    /// Fails if the allocator has no memory for a chunk. Chunks before it stay allocated.
    pub fn reserve(
        &self,
        indices: Range<usize>,
        make: impl Fn() -> T,
    ) -> Result<(), TryReserveError> {
        let (first, end) = (indices.start / CHUNK, indices.end.div_ceil(CHUNK));
        for chunk in self.chunks.iter().take(end).skip(first) {
            chunk.try_call_once(|| try_collect((0..CHUNK).map(|_| make())))?;
        }
        Ok(())
    }

    /// Returns the item at `index`, or `None` if it has no memory.
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    /// Returns the ranges of indices that have memory, in ascending order.
    pub fn reserved(&self) -> impl Iterator<Item = Range<usize>> {
        let chunks = (0..).step_by(CHUNK).zip(&self.chunks);
        let reserved = chunks.filter(|(_, chunk)| chunk.is_completed());
        reserved.map(|(first, _)| first..first + CHUNK)
    }
}
