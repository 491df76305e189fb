//! The kernel's services for the interrupt core.

use crate::irq::Irq;
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

    /// An interrupt was shut off: more than 99 900 of 100 000 runs of its handler found [nothing to
    /// do](crate::IrqReturn::None). It is disabled once more than before, until
    /// [`IrqHandle::enable`](crate::IrqHandle::enable). As provided, nobody hears of it.
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
