//! Locks and wait queues. Route look-ups use neither. With the feature `std`, waiters sleep;
//! without it, they spin.

#[cfg(feature = "std")]
mod imp {
    use crate::sync::{self, Condvar, MutexGuard};
    use core::fmt;
    use std::sync::{PoisonError, TryLockError};

    /// Mutex that ignores poisoning.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Locks the mutex unless another thread holds it.
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }

    /// Threads that wait for other threads' changes.
    #[derive(Default)]
    pub(crate) struct WaitQueue {
        waiting: Mutex<()>,
        made: Condvar,
    }

    impl WaitQueue {
        /// Waits until `done` returns `true`. Once `done` has returned `true`, it must never return
        /// `false` again.
        pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
            let mut waiting = self.waiting.lock();
            while !done() {
                waiting = self.made.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }

        /// Wakes all waiters, so that they check their condition again.
        pub(crate) fn wake(&self) {
            drop(self.waiting.lock());
            self.made.notify_all();
        }
    }

    impl fmt::Debug for WaitQueue {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("WaitQueue")
        }
    }
}

#[cfg(not(feature = "std"))]
mod imp {
    pub(crate) use spin::mutex::SpinMutex as Mutex;

    /// Threads that wait for other threads' changes.
    #[derive(Debug, Default)]
    pub(crate) struct WaitQueue(());

    impl WaitQueue {
        /// Waits until `done` returns `true`. Once `done` has returned `true`, it must never return
        /// `false` again.
        #[expect(clippy::unused_self, reason = "the same interface as with `std`")]
        pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
            while !done() {
                core::hint::spin_loop();
            }
        }

        /// Wakes all waiters, so that they check their condition again.
        #[expect(clippy::unused_self, reason = "the same interface as with `std`")]
        pub(crate) fn wake(&self) {}
    }
}

pub(crate) use imp::{Mutex, WaitQueue};
