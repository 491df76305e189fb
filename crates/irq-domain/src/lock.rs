//! Locks over [`Host`]: one for state that hard-IRQ handlers touch, two for state that only tasks
//! touch.
//!
//! Lock order, outermost first; a lock is never taken while one further down is held:
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
use core::ops::{Deref, DerefMut};
use msi_types::IrqState;
use spin::mutex::{SpinMutex, SpinMutexGuard};
use spin::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A lock that tasks and hard-IRQ handlers share: interrupts are saved while it is held, and for no
/// longer.
pub(crate) struct IrqLock<T>(SpinMutex<T>);

impl<T> IrqLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Any context.
    pub(crate) fn lock<'a>(&'a self, host: &'a dyn Host) -> IrqGuard<'a, T> {
        loop {
            let saved = Saved { host, state: host.irq_save() };
            if let Some(inner) = self.0.try_lock() {
                return IrqGuard { inner, _saved: saved };
            }
            drop(saved);
            host.relax();
        }
    }
}

/// Restores the interrupt state.
struct Saved<'a> {
    host: &'a dyn Host,
    state: IrqState,
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        self.host.irq_restore(self.state);
    }
}

/// Fields are dropped in this order: first unlocked, then restored.
pub(crate) struct IrqGuard<'a, T> {
    inner: SpinMutexGuard<'a, T>,
    _saved: Saved<'a>,
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A lock of tasks alone: interrupts stay as they are, and its holder may wait for hardware.
pub(crate) struct TaskLock<T>(SpinMutex<T>);

impl<T> TaskLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Task.
    pub(crate) fn lock(&self, host: &dyn Host) -> SpinMutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            host.yield_now();
        }
    }
}

/// Shared and exclusive locking between tasks.
pub(crate) struct TaskRwLock<T>(RwLock<T>);

impl<T> TaskRwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// Task.
    pub(crate) fn read(&self, host: &dyn Host) -> RwLockReadGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_read() {
                return guard;
            }
            host.yield_now();
        }
    }

    /// Task.
    pub(crate) fn write(&self, host: &dyn Host) -> RwLockWriteGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_write() {
                return guard;
            }
            host.yield_now();
        }
    }
}

macro_rules! opaque_debug {
    ($($lock:ident),*) => { $(
        impl<T> fmt::Debug for $lock<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($lock), "(..)"))
            }
        }
    )* };
}
opaque_debug!(IrqLock, TaskLock, TaskRwLock);
