//! Locks. An [`IrqLock`] may be taken while a [`TaskLock`] is held, never the other way round.
//!
//! ```text
//! remapping layer's state (TaskLock)
//! └─ vector domain's devices (TaskLock)
//!    └─ vector domain's matrix and hwirqs (IrqLock): allocates nothing; calls Apic alone
//! ```

use crate::apic::Apic;

/// Data that tasks and hard-IRQ handlers share: interrupts are saved while it is used.
#[derive(Debug)]
pub(crate) struct IrqLock<T>(spin::Mutex<T>);

impl<T> IrqLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(spin::Mutex::new(data))
    }

    /// Runs `f` on the data. Any; not reentrant.
    pub(crate) fn with<R>(&self, apic: &dyn Apic, f: impl FnOnce(&mut T) -> R) -> R {
        let state = apic.irq_save();
        let result = loop {
            if let Some(mut data) = self.0.try_lock() {
                break f(&mut data);
            }
            apic.relax();
        };
        apic.irq_restore(state);
        result
    }
}

/// Data that tasks alone use, with interrupts as they are: its holder may wait for hardware
/// or allocate.
#[derive(Debug)]
pub(crate) struct TaskLock<T>(spin::Mutex<T>);

impl<T> TaskLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(spin::Mutex::new(data))
    }

    /// Runs `f` on the data. Task; not reentrant.
    pub(crate) fn with<R>(&self, apic: &dyn Apic, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(mut data) = self.0.try_lock() {
                return f(&mut data);
            }
            apic.relax();
        }
    }
}
