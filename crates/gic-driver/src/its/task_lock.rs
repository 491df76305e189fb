//! The lock of operations that wait for hardware or ask for memory.

use msi_types::LocalCpu;

/// Data that one task at a time uses, with interrupts as they are: its holder polls hardware and
/// calls the platform's allocator, which must not happen with interrupts masked. Never taken in
/// hard-IRQ context. A waiter calls [`LocalCpu::yield_now`], so that a holder of lower priority
/// runs.
#[derive(Debug)]
pub(crate) struct TaskLock<T> {
    data: spin::Mutex<T>,
}

impl<T> TaskLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self { data: spin::Mutex::new(data) }
    }

    /// The data of a lock that nobody else has.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Runs `f` on the data. Not reentrant.
    pub(crate) fn with<C: LocalCpu, R>(&self, cpu: &C, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(mut guard) = self.data.try_lock() {
                return f(&mut guard);
            }
            cpu.yield_now();
        }
    }
}
