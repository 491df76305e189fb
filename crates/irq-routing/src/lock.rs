//! Locks and wait queues, off the path of signals. With the feature `std` the operating system puts
//! a waiter to sleep; without it, waiters spin.

#[cfg(feature = "std")]
mod imp {
    use crate::sync::{self, Condvar, MutexGuard};
    use core::fmt;
    use std::sync::PoisonError;

    /// A mutual exclusion. What a panic left behind is used on.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Lets threads wait until other threads have changed something.
    #[derive(Default)]
    pub(crate) struct WaitQueue {
        waiting: Mutex<()>,
        made: Condvar,
    }

    impl WaitQueue {
        /// Waits until `done` holds. It must hold for good from some change on.
        pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
            let mut waiting = self.waiting.lock();
            while !done() {
                waiting = self.made.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }

        /// Wakes the waiters after a change.
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

    /// Lets threads wait until other threads have changed something.
    #[derive(Debug, Default)]
    pub(crate) struct WaitQueue(());

    impl WaitQueue {
        /// Waits until `done` holds. It must hold for good from some change on.
        #[expect(clippy::unused_self, reason = "as with an operating system")]
        pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
            while !done() {
                core::hint::spin_loop();
            }
        }

        /// Wakes the waiters after a change.
        #[expect(clippy::unused_self, reason = "as with an operating system")]
        pub(crate) fn wake(&self) {}
    }
}

pub(crate) use imp::{Mutex, WaitQueue};
