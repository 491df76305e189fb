//! Services that the kernel provides to the interrupt core.

use crate::number::Irq;
use core::ops::Deref;
use msi_types::{Cpu, TaskContext};

/// Services that the interrupt core requires of the kernel (or of a simulated one). The core may
/// call every function in any context.
pub trait Host: TaskContext {
    /// Returns the calling CPU, or `None` on a thread that isn't a CPU (the host side of a
    /// simulation).
    ///
    /// The core only calls this function with interrupts masked, so the calling task cannot migrate
    /// to another CPU before the core has used the result.
    fn current_cpu(&self) -> Option<Cpu>;

    /// Reports that the core has disabled an interrupt because more than 99 900 of 100 000 handler
    /// runs found [nothing to do](crate::IrqReturn::None). The driver can enable it again with
    /// [`IrqHandle::enable`](crate::IrqHandle::enable). The provided method does nothing.
    ///
    /// Context: hard IRQ.
    fn disabled_as_spurious(&self, irq: Irq) {
        let _ = irq;
    }
}

/// Forwards calls on references and smart pointers to the kernel behind them.
impl<P: Deref<Target: Host> + Send + Sync> Host for P {
    fn current_cpu(&self) -> Option<Cpu> {
        (**self).current_cpu()
    }

    fn disabled_as_spurious(&self, irq: Irq) {
        (**self).disabled_as_spurious(irq);
    }
}
