//! A lock that masks interrupts and may be taken in any context.

use crate::cpu;
use spin::Mutex;

/// Data that only one CPU at a time can access; interrupts of that CPU are masked during the
/// access.
#[derive(Debug, Default)]
pub struct IrqMutex<T>(Mutex<T>);

impl<T> IrqMutex<T> {
    /// Creates a lock that guards `data`.
    pub const fn new(data: T) -> Self {
        Self(Mutex::new(data))
    }

    /// Runs `f` on the data. Must not be called recursively.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let state = cpu::irq_save();
        let result = f(&mut self.0.lock());
        cpu::irq_restore(state);
        result
    }
}
