//! A readers-writer lock for tasks.

use core::fmt;
use core::ops::{Deref, DerefMut};
use msi_types::LocalCpu;
use spin::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A lock for data that only tasks use, with several readers or one writer. The lock does not mask
/// interrupts, so a holder may wait for hardware or allocate. A waiter calls
/// [`LocalCpu::yield_now`], so that a holder of lower priority can run.
#[derive(Default)]
pub struct TaskRwLock<T>(RwLock<T>);

impl<T> TaskRwLock<T> {
    /// Creates an unlocked lock around `data`.
    pub const fn new(data: T) -> Self {
        Self(RwLock::new(data))
    }

    /// Acquires the lock, shared with other readers, until the guard is dropped.
    ///
    /// Context: task; may sleep.
    pub fn read<C: LocalCpu + ?Sized>(&self, cpu: &C) -> TaskReadGuard<'_, T> {
        loop {
            if let Some(data) = self.0.try_read() {
                return TaskReadGuard(data);
            }
            cpu.yield_now();
        }
    }

    /// Acquires the lock exclusively until the guard is dropped.
    ///
    /// Context: task; may sleep.
    pub fn write<C: LocalCpu + ?Sized>(&self, cpu: &C) -> TaskWriteGuard<'_, T> {
        loop {
            if let Some(data) = self.0.try_write() {
                return TaskWriteGuard(data);
            }
            cpu.yield_now();
        }
    }
}

/// Read guard for a [`TaskRwLock`]. Dropping it releases the lock.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct TaskReadGuard<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for TaskReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Write guard for a [`TaskRwLock`]. Dropping it releases the lock.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct TaskWriteGuard<'a, T>(RwLockWriteGuard<'a, T>);

impl<T> Deref for TaskWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for TaskWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> fmt::Debug for TaskRwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskRwLock(..)")
    }
}
