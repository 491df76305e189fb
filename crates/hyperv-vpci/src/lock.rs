//! Locks of the guest's end. An [`IrqLock`] may be taken while a [`TaskLock`] is held, never the
//! other way round.
//!
//! ```text
//! a bus's link to its host (TaskLock): does not wait for the host while it is held
//! ├─ the root controller's own locks
//! └─ a bus's interrupts, an SPI domain's targets (IrqLock): allocate nothing, call nothing
//! ```

use msi_types::LocalCpu;
use spin::Mutex;

/// Data that tasks and hard-IRQ handlers share: interrupts are saved while it is used.
#[derive(Debug)]
pub(crate) struct IrqLock<T>(Mutex<T>);

impl<T> IrqLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(Mutex::new(data))
    }

    /// Runs `f` on the data. Any; not reentrant.
    pub(crate) fn with<R>(&self, cpu: &dyn LocalCpu, f: impl FnOnce(&mut T) -> R) -> R {
        let state = cpu.irq_save();
        let result = loop {
            if let Some(mut data) = self.0.try_lock() {
                break f(&mut data);
            }
            cpu.relax();
        };
        cpu.irq_restore(state);
        result
    }
}

/// Data that tasks alone use, with interrupts as they are.
#[derive(Debug)]
pub(crate) struct TaskLock<T>(Mutex<T>);

impl<T> TaskLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(Mutex::new(data))
    }

    /// Runs `f` on the data. Task; not reentrant.
    pub(crate) fn with<R>(&self, cpu: &dyn LocalCpu, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(mut data) = self.0.try_lock() {
                return f(&mut data);
            }
            cpu.yield_now();
        }
    }
}
