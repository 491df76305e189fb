//! Spin locks on top of a kernel's [`LocalCpu`]: [`IrqLock`] for data that hard-IRQ handlers also
//! use, and [`TaskLock`] and [`TaskRwLock`] for data that only tasks use. An `IrqLock` may be
//! acquired while a task lock is held, but a task lock must not be acquired while an `IrqLock` is
//! held. No lock is reentrant.
//!
//! # Example
//!
//! ```
//! use doorbell_fallible::lock::IrqLock;
//! use msi_types::{IrqState, LocalCpu};
//!
//! struct Kernel;
//!
//! impl LocalCpu for Kernel {
//!     fn irq_save(&self) -> IrqState {
//!         IrqState::new(0) // Reads and masks interrupts, for example by DAIF.
//!     }
//!
//!     fn irq_restore(&self, _: IrqState) {}
//!
//!     fn yield_now(&self) {
//!         self.relax(); // A kernel with a scheduler yields.
//!     }
//! }
//!
//! let count = IrqLock::new(0);
//! count.with(&Kernel, |count| *count += 1);
//! assert_eq!(*count.lock(&Kernel), 1);
//! ```
#![forbid(unsafe_code)]

mod task_rw_lock;

pub use task_rw_lock::{TaskReadGuard, TaskRwLock, TaskWriteGuard};

use core::fmt;
use core::ops::{Deref, DerefMut};
use msi_types::{IrqState, LocalCpu};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A lock for data that tasks and hard-IRQ handlers share. Interrupts stay masked from the first
/// attempt to take the lock until it is released. The holder must not wait or allocate.
///
/// The [module's example](self#example) protects a counter with it.
#[derive(Default)]
pub struct IrqLock<T>(SpinMutex<T>);

impl<T> IrqLock<T> {
    /// Creates an unlocked lock around `data`.
    pub const fn new(data: T) -> Self {
        Self(SpinMutex::new(data))
    }

    /// Returns the data without locking: `&mut self` guarantees that no other user exists.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Acquires the lock until the guard is dropped. If several locks are held, their guards must
    /// be dropped in reverse order.
    ///
    /// Context: any.
    pub fn lock<'a, C: LocalCpu + ?Sized>(&'a self, cpu: &'a C) -> IrqGuard<'a, T, C> {
        let masked = Masked { cpu, state: cpu.irq_save() };
        loop {
            if let Some(data) = self.0.try_lock() {
                return IrqGuard { data, _masked: masked };
            }
            cpu.relax();
        }
    }

    /// Calls `f` with the data while holding the lock.
    ///
    /// Context: any.
    pub fn with<C: LocalCpu + ?Sized, R>(&self, cpu: &C, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock(cpu))
    }
}

/// A guard that masks the interrupts of a CPU until it is dropped.
struct Masked<'a, C: LocalCpu + ?Sized> {
    cpu: &'a C,
    state: IrqState,
}

impl<C: LocalCpu + ?Sized> Drop for Masked<'_, C> {
    fn drop(&mut self) {
        self.cpu.irq_restore(self.state);
    }
}

/// Guard for an [`IrqLock`]. Dropping it releases the lock and then restores the interrupt mask.
#[must_use = "the lock is released, and the interrupt mask restored, when the guard is dropped"]
pub struct IrqGuard<'a, T, C: LocalCpu + ?Sized> {
    // Keep this order: fields are dropped top to bottom, and we must release the lock before we
    // unmask.
    data: SpinMutexGuard<'a, T>,
    _masked: Masked<'a, C>,
}

impl<T, C: LocalCpu + ?Sized> Deref for IrqGuard<'_, T, C> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T, C: LocalCpu + ?Sized> DerefMut for IrqGuard<'_, T, C> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

/// A lock for data that only tasks use. The lock does not mask interrupts, so the holder may wait
/// for hardware or allocate. Waiters call [`LocalCpu::yield_now`] to let a lower-priority holder
/// run.
///
/// ```
/// # use msi_types::{IrqState, LocalCpu};
/// # struct Kernel;
/// # impl LocalCpu for Kernel {
/// #     fn irq_save(&self) -> IrqState { IrqState::new(0) }
/// #     fn irq_restore(&self, _: IrqState) {}
/// #     fn yield_now(&self) { self.relax(); }
/// # }
/// use doorbell_fallible::lock::TaskLock;
///
/// let devices = TaskLock::new(vec!["uart"]);
/// devices.with(&Kernel, |devices| devices.push("nvme0"));
/// assert_eq!(*devices.lock(&Kernel), ["uart", "nvme0"]);
/// ```
#[derive(Default)]
pub struct TaskLock<T>(SpinMutex<T>);

impl<T> TaskLock<T> {
    /// Creates an unlocked lock around `data`.
    pub const fn new(data: T) -> Self {
        Self(SpinMutex::new(data))
    }

    /// Returns the data without locking: `&mut self` guarantees that no other user exists.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Acquires the lock until the guard is dropped.
    ///
    /// Context: task; may sleep.
    pub fn lock<C: LocalCpu + ?Sized>(&self, cpu: &C) -> TaskGuard<'_, T> {
        loop {
            if let Some(data) = self.0.try_lock() {
                return TaskGuard(data);
            }
            cpu.yield_now();
        }
    }

    /// Calls `f` with the data while holding the lock.
    ///
    /// Context: task; may sleep.
    pub fn with<C: LocalCpu + ?Sized, R>(&self, cpu: &C, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock(cpu))
    }
}

/// Guard for a [`TaskLock`]. Dropping it releases the lock.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct TaskGuard<'a, T>(SpinMutexGuard<'a, T>);

impl<T> Deref for TaskGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for TaskGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> fmt::Debug for IrqLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqLock(..)")
    }
}

impl<T> fmt::Debug for TaskLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskLock(..)")
    }
}

impl<T, C: LocalCpu + ?Sized> fmt::Debug for IrqGuard<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqGuard(..)")
    }
}

#[cfg(test)]
mod tests;
