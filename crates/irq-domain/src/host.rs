//! The kernel's services for the interrupt core.

use crate::number::Irq;
use core::ops::Deref;
use msi_types::{Cpu, TaskContext};

/// The kernel, or a simulation of one, as the interrupt core uses it. The core may call every
/// function in any context.
pub trait Host: TaskContext {
    /// Returns the CPU that runs the caller, or `None` on a thread that is not a CPU (the host side
    /// of a simulation).
    ///
    /// The core calls this only with interrupts masked, so the caller cannot migrate while it uses
    /// the result.
    fn current_cpu(&self) -> Option<Cpu>;

    /// Called after an interrupt was shut off because more than 99 900 of 100 000 runs of its
    /// handler found [nothing to do](crate::IrqReturn::None). The interrupt has one additional
    /// disable, which [`IrqHandle::enable`](crate::IrqHandle::enable) undoes. The provided method
    /// does nothing.
    ///
    /// Context: hard IRQ.
    fn screaming(&self, irq: Irq) {
        let _ = irq;
    }
}

/// References and smart pointers to a kernel.
impl<P: Deref<Target: Host> + Send + Sync> Host for P {
    fn current_cpu(&self) -> Option<Cpu> {
        (**self).current_cpu()
    }

    fn screaming(&self, irq: Irq) {
        (**self).screaming(irq);
    }
}
