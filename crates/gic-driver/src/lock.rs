//! The drivers' lock: it masks interrupts, because operations marked "any context" may interrupt a
//! holder.

use msi_types::LocalCpu;

/// Data that one CPU at a time uses with its interrupts masked.
#[derive(Debug, Default)]
pub struct IrqLock<T> {
    data: spin::Mutex<T>,
}

impl<T> IrqLock<T> {
    /// Guards `data`.
    pub const fn new(data: T) -> Self {
        Self { data: spin::Mutex::new(data) }
    }

    /// Runs `f` on the data with interrupts masked. Not reentrant: `f` does not take the same lock.
    pub fn with<C: LocalCpu, R>(&self, cpu: &C, f: impl FnOnce(&mut T) -> R) -> R {
        let state = cpu.irq_save();
        let result = loop {
            if let Some(mut guard) = self.data.try_lock() {
                break f(&mut guard);
            }
            cpu.relax();
        };
        cpu.irq_restore(state);
        result
    }

    /// The data, without a lock: there is no other user.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}
