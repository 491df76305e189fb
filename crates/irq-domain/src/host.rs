//! Services that the kernel provides to the interrupt core.

use crate::number::Irq;
use core::ops::Deref;
use msi_types::{Cpu, TaskContext};

/// The kernel (or a simulation of one), as the interrupt core uses it. The core may call every
/// function in any context.
pub trait Host: TaskContext {
    /// Returns the calling CPU, or `None` on a thread that isn't a CPU (the host side of a
    /// simulation).
    ///
    /// The core only calls this with interrupts masked, so it can't migrate while it uses the
    /// result.
    fn current_cpu(&self) -> Option<Cpu>;

    /// Called when an interrupt has been shut off because more than 99 900 of 100 000 handler runs
    /// found [nothing to do](crate::IrqReturn::None). This counts as one more disable, which
    /// [`IrqHandle::enable`](crate::IrqHandle::enable) undoes. The provided method does nothing.
    ///
    /// Context: hard IRQ.
    fn screaming(&self, irq: Irq) {
        let _ = irq;
    }
}

/// References and smart pointers to a kernel forward to it.
impl<P: Deref<Target: Host> + Send + Sync> Host for P {
    fn current_cpu(&self) -> Option<Cpu> {
        (**self).current_cpu()
    }

    fn screaming(&self, irq: Irq) {
        (**self).screaming(irq);
    }
}
