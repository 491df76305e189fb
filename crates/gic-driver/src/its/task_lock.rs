//! The lock of operations that wait for hardware or ask for memory.

use crate::platform::GicPlatform;

/// Data that one task at a time uses, with interrupts as they are: its holder polls hardware and
/// calls the platform's allocator, which must not happen with interrupts masked. Never taken in
/// hard-IRQ context. A waiter calls [`GicPlatform::yield_task`], so that a holder of lower priority
/// runs.
#[derive(Debug)]
pub(crate) struct TaskLock<T> {
    data: spin::Mutex<T>,
}

impl<T> TaskLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self { data: spin::Mutex::new(data) }
    }

    /// Runs `f` on the data. Not reentrant.
    pub(crate) fn with<P: GicPlatform, R>(&self, platform: &P, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(mut guard) = self.data.try_lock() {
                return f(&mut guard);
            }
            platform.yield_task();
        }
    }
}
