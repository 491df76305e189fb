//! Lock whose readers seldom write a common cache line.

use super::{Mutex, RwLock, RwLockReadGuard};
use alloc::sync::Arc;
use core::array;
use core::mem;
use core::ops::Deref;
use doorbell_fallible::{OutOfMemory, try_arc};

/// Number of shards. Without an operating system, waiters spin, and few readers are expected. A
/// scheduler that explores interleavings has one shard to switch threads at, except in the check of
/// this lock.
const SHARDS: usize = if cfg!(all(feature = "std", not(all(test, shuttle)))) { 4 } else { 1 };

/// Lock for readers, each of which takes one shard, or one writer.
///
/// A reader leaves a reference to the value in its shard, where later readers find it without
/// writing another line. A writer takes back the references, and then has exclusive access. As long
/// as only writers come, they lock nothing but `home`.
pub(crate) struct ShardedLock<T, const N: usize = SHARDS> {
    home: Mutex<Home<T, N>>,
    shards: [Shard<T>; N],
}

struct Home<T, const N: usize> {
    value: Arc<T>,
    /// `true` for each shard that holds a reference.
    lent: [bool; N],
}

/// Shard that shares no cache line with another shard.
#[repr(align(128))]
struct Shard<T>(RwLock<Option<Arc<T>>>);

/// Access for reading.
pub(crate) struct Reading<'a, T>(RwLockReadGuard<'a, Option<Arc<T>>>);

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("a reader's shard holds a reference")
    }
}

impl<T, const N: usize> ShardedLock<T, N> {
    pub(crate) fn new(value: T) -> Result<Self, OutOfMemory> {
        let home = Home { value: try_arc(value)?, lent: [false; N] };
        Ok(Self { home: Mutex::new(home), shards: array::from_fn(|_| Shard(RwLock::new(None))) })
    }

    /// Waits until no thread writes. Readers whose numbers differ modulo `N` use different
    /// shards.
    pub(crate) fn read(&self, reader: usize) -> Reading<'_, T> {
        let number = reader.rem_euclid(N);
        let reading = self.shards[number].0.read();
        if reading.is_some() {
            return Reading(reading);
        }
        drop(reading);
        self.borrow(number)
    }

    /// Reads by a shard that may not hold a reference.
    #[cold]
    fn borrow(&self, number: usize) -> Reading<'_, T> {
        let shard = &self.shards[number].0;
        // Until we have locked the shard, no writer may take its reference back.
        let mut home = self.home.lock();
        if !mem::replace(&mut home.lent[number], true) {
            *shard.write() = Some(home.value.clone());
        }
        Reading(shard.read())
    }

    /// Waits until no other thread reads or writes, and runs `write`.
    pub(crate) fn write<R>(&self, write: impl FnOnce(&mut T) -> R) -> R {
        let mut home = self.home.lock();
        let Home { value, lent } = &mut *home;
        for (shard, lent) in self.shards.iter().zip(lent) {
            if mem::take(lent) {
                *shard.0.write() = None;
            }
        }
        write(Arc::get_mut(value).expect("nobody reads"))
    }

    /// Returns `true` if another thread writes.
    pub(crate) fn is_busy(&self) -> bool {
        self.home.try_lock().is_none()
    }
}
