//! The kernel's services for the interrupt core.

use crate::number::Irq;
use core::ops::Deref;
use msi_types::{Cpu, TaskContext};

/// The kernel, or a simulation of one, as the interrupt core uses it. Every function may be called
/// in any context.
pub trait Host: TaskContext {
    /// The CPU that runs the caller; `None` on a thread that is no CPU (the host side of a
    /// simulation).
    ///
    /// The core asks this only with interrupts saved, so the answer cannot change under it.
    fn current_cpu(&self) -> Option<Cpu>;

    /// Called after an interrupt was shut off because more than 99 900 of 100 000 runs of its
    /// handler found [nothing to do](crate::IrqReturn::None). It has one additional disable, which
    /// [`IrqHandle::enable`](crate::IrqHandle::enable) undoes. The provided method does nothing.
    ///
    /// Context: hard IRQ.
    fn screaming(&self, irq: Irq) {
        let _ = irq;
    }
}

/// References and smart pointers.
impl<P: Deref<Target: Host> + Send + Sync> Host for P {
    fn current_cpu(&self) -> Option<Cpu> {
        (**self).current_cpu()
    }

    fn screaming(&self, irq: Irq) {
        (**self).screaming(irq);
    }
}
