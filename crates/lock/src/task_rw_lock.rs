//! A lock of tasks that several readers may hold.

use core::fmt;
use msi_types::LocalCpu;
use spin::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Data of tasks alone that several readers or one writer may use. A holder may wait for hardware
/// or allocate. A waiter calls [`LocalCpu::yield_now`].
#[derive(Default)]
pub struct TaskRwLock<T>(RwLock<T>);

impl<T> TaskRwLock<T> {
    /// Guards `data`.
    pub const fn new(data: T) -> Self {
        Self(RwLock::new(data))
    }

    /// Locks, together with other readers, until the guard is dropped.
    ///
    /// Context: task; may sleep.
    pub fn read<C: LocalCpu + ?Sized>(&self, cpu: &C) -> TaskReadGuard<'_, T> {
        loop {
            if let Some(data) = self.0.try_read() {
                return data;
            }
            cpu.yield_now();
        }
    }

    /// Locks exclusively until the guard is dropped.
    ///
    /// Context: task; may sleep.
    pub fn write<C: LocalCpu + ?Sized>(&self, cpu: &C) -> TaskWriteGuard<'_, T> {
        loop {
            if let Some(data) = self.0.try_write() {
                return data;
            }
            cpu.yield_now();
        }
    }
}

/// The data of a [`TaskRwLock`], locked for reading until this is dropped.
pub type TaskReadGuard<'a, T> = RwLockReadGuard<'a, T>;

/// The data of a [`TaskRwLock`], locked exclusively until this is dropped.
pub type TaskWriteGuard<'a, T> = RwLockWriteGuard<'a, T>;

impl<T> fmt::Debug for TaskRwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskRwLock(..)")
    }
}
