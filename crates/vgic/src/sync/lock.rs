//! Lock for state that is rarely accessed. Injection never takes such a lock. With the feature
//! `std`, a waiter sleeps in the operating system; without it, waiters spin.

mod sharded;

#[cfg(feature = "std")]
mod imp {
    use crate::sync;
    pub(crate) use crate::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
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

        /// Returns `true` if a thread reads or writes.
        pub(crate) fn is_locked(&self) -> bool {
            matches!(self.0.try_write(), Err(TryLockError::WouldBlock))
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
    pub(crate) use spin::rwlock::{RwLockReadGuard, RwLockWriteGuard};

    /// Lock for many readers or one writer.
    pub(crate) struct RwLock<T>(spin::rwlock::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(spin::rwlock::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read()
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write()
        }

        /// Returns `true` if a thread reads or writes.
        pub(crate) fn is_locked(&self) -> bool {
            self.0.try_write().is_none()
        }
    }
}

pub(crate) use imp::{Mutex, MutexGuard};
use imp::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use sharded::{Reading, ShardedLock};
