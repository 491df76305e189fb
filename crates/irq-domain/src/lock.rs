//! The lock that tasks share, and the order of all locks.
//!
//! Outermost first; a lock is never taken while one further down is held:
//!
//! ```text
//! hotplug (TaskRwLock)
//! └─ a device's state; requests at the root, then a wired input's target (TaskLock)
//!    ├─ a device's attachment, then a layer's records, then its pages (TaskLock)
//!    └─ IRQ numbers, names (TaskLock)
//!       └─ an interrupt's control block (IrqLock)
//!          └─ the list of deferred frees, a store's mask bits (IrqLock); locks
//!             inside the controller
//! ```

use crate::host::Host;
use core::fmt;
use spin::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Shared and exclusive locking between tasks.
pub(crate) struct TaskRwLock<T>(RwLock<T>);

impl<T> TaskRwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// Context: task; may sleep.
    pub(crate) fn read(&self, host: &dyn Host) -> RwLockReadGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_read() {
                return guard;
            }
            host.yield_now();
        }
    }

    /// Context: task; may sleep.
    pub(crate) fn write(&self, host: &dyn Host) -> RwLockWriteGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_write() {
                return guard;
            }
            host.yield_now();
        }
    }
}

impl<T> fmt::Debug for TaskRwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskRwLock(..)")
    }
}
