//! Lock for state that is rarely accessed. Injection never takes such a lock. With the feature
//! `std`, a waiter sleeps in the operating system; without it, waiters spin.

mod sharded;

#[cfg(feature = "std")]
mod imp {
    use crate::sync;
    use crate::sync::RwLockWriteGuard;
    pub(crate) use crate::sync::{MutexGuard, RwLockReadGuard};
    use std::sync::{PoisonError, TryLockError};

    /// Lock for many readers or one writer. Ignores lock poisoning.
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Mutual exclusion lock. Ignores lock poisoning.
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Acquires the lock, or returns `None` if another thread holds it.
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }
}

#[cfg(not(feature = "std"))]
mod imp {
    pub(crate) use spin::mutex::{SpinMutex as Mutex, SpinMutexGuard as MutexGuard};
    pub(crate) use spin::rwlock::{RwLock, RwLockReadGuard};
}

pub(crate) use imp::{Mutex, MutexGuard};
use imp::{RwLock, RwLockReadGuard};
pub(crate) use sharded::{Reading, ShardedLock};
