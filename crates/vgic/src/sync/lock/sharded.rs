//! Lock whose readers seldom write a common cache line.

use super::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use alloc::sync::Arc;
use core::array;
use core::ops::Deref;
use doorbell_fallible::{OutOfMemory, try_arc};

/// Number of shards. Without an operating system, waiters spin, and few readers are expected. A
/// scheduler that explores interleavings has one lock to switch threads at.
const SHARDS: usize = if cfg!(all(feature = "std", not(all(test, shuttle)))) { 4 } else { 1 };

/// Lock for readers, each of which takes one shard, or one writer, which takes all.
///
/// While nobody writes, each shard holds a reference to the value. A writer removes all references
/// except one, which therefore gives exclusive access.
pub(crate) struct ShardedLock<T> {
    shards: [Shard<T>; SHARDS],
}

/// Shard that shares no cache line with another shard.
#[repr(align(128))]
struct Shard<T>(RwLock<Option<Arc<T>>>);

/// Access for reading.
pub(crate) struct Reading<'a, T>(RwLockReadGuard<'a, Option<Arc<T>>>);

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("nobody writes")
    }
}

/// A writer's shards, which get their references back in the end, even if the writer panics.
struct Writing<'a, T> {
    value: Arc<T>,
    shards: [RwLockWriteGuard<'a, Option<Arc<T>>>; SHARDS],
}

impl<T> Drop for Writing<'_, T> {
    fn drop(&mut self) {
        self.shards.iter_mut().for_each(|shard| **shard = Some(self.value.clone()));
    }
}

impl<T> ShardedLock<T> {
    pub(crate) fn new(value: T) -> Result<Self, OutOfMemory> {
        let value = try_arc(value)?;
        Ok(Self { shards: array::from_fn(|_| Shard(RwLock::new(Some(value.clone())))) })
    }

    /// Waits until no thread writes. Readers whose numbers differ modulo [`SHARDS`] use different
    /// shards.
    pub(crate) fn read(&self, reader: usize) -> Reading<'_, T> {
        Reading(self.shards[reader.rem_euclid(SHARDS)].0.read())
    }

    /// Waits until no other thread reads or writes, and runs `write`.
    pub(crate) fn write<R>(&self, write: impl FnOnce(&mut T) -> R) -> R {
        let mut shards = self.shards.each_ref().map(|shard| shard.0.write());
        let mut values = shards.iter_mut().filter_map(|shard| shard.take());
        let value = values.next().expect("nobody else writes");
        values.for_each(drop);
        let mut writing = Writing { value, shards };
        write(Arc::get_mut(&mut writing.value).expect("nobody reads"))
    }

    /// Returns `true` if another thread writes.
    pub(crate) fn is_busy(&self) -> bool {
        self.shards[0].0.is_locked()
    }
}
