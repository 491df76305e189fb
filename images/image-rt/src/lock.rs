//! A lock that any context may take: it masks interrupts.

use crate::cpu;
use spin::Mutex;

/// Data that one CPU at a time uses with its interrupts masked.
#[derive(Debug, Default)]
pub struct IrqMutex<T>(Mutex<T>);

impl<T> IrqMutex<T> {
    /// Guards `data`.
    pub const fn new(data: T) -> Self {
        Self(Mutex::new(data))
    }

    /// Runs `f` on the data. Not reentrant.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let state = cpu::irq_save();
        let result = f(&mut self.0.lock());
        cpu::irq_restore(state);
        result
    }
}
