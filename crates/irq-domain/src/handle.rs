//! Handles: the owners of handlers.

use crate::affinity::Moved;
use crate::control::Control;
use crate::deferred_free::TakenOnDrop;
use crate::descriptor::Descriptor;
use crate::error::MoveError;
use crate::interrupt::Interrupt;
use crate::interrupts::Interrupts;
use crate::irq::Irq;
use crate::shared::Shared;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;
use msi_types::{Cpu, HwIrq, Pending};

/// A requested interrupt. Dropping the handle masks the interrupt and removes the handler.
///
/// **Dropping**, any context:
/// - Where the caller [may wait](crate::TaskContext::may_wait), drop returns once the handler has
///   returned on whichever CPU it runs, and after its memory was freed. So do not hold a lock that
///   the handler takes.
/// - Elsewhere – in hard-IRQ context, inside its own handler or not, and with interrupts saved –
///   drop neither waits nor frees. The handler is not entered again; a later task operation, such
///   as [`Interrupts::reclaim`], frees it.
#[must_use = "dropping the handle removes the handler"]
pub struct IrqHandle {
    core: Arc<Interrupts>,
    descriptor: TakenOnDrop<Descriptor>,
}

impl IrqHandle {
    pub(crate) fn new(core: Arc<Interrupts>, descriptor: Shared<Descriptor>) -> Self {
        Self { core, descriptor: TakenOnDrop::new(descriptor) }
    }

    /// The interrupt's number. Any.
    pub fn irq(&self) -> Irq {
        self.descriptor.irq
    }

    /// The interrupt as the root controller acknowledges it. Any.
    #[inline]
    pub fn hwirq(&self) -> HwIrq {
        self.descriptor.hwirq
    }

    /// Masks the interrupt at its source. A handler that runs goes on; what arrives from now on is
    /// sent again when it is enabled. Disables nest. Any.
    pub fn disable(&self) {
        self.while_installed(|control| self.interrupt().disable(control));
    }

    /// [`disable`](Self::disable), then waits for the handler to return; nothing to wait for where
    /// the caller may not. Task.
    pub fn disable_and_wait(&self) {
        self.disable();
        self.synchronize();
    }

    /// Undoes one [`disable`](Self::disable). What arrived meanwhile arrives now. Any.
    pub fn enable(&self) {
        self.while_installed(|control| self.interrupt().enable(control));
    }

    /// Waits until no handler runs that began before the call; where the caller
    /// [may not wait](crate::TaskContext::may_wait), it does not. Task.
    pub fn synchronize(&self) {
        self.interrupt().synchronize();
    }

    /// Moves the interrupt: [`Interrupts::set_affinity`]. Task.
    pub fn set_affinity(&self, to: Cpu) -> Result<Moved, MoveError> {
        self.core.move_to(&self.descriptor, to)
    }

    /// Delivers the interrupt to one of `among`: [`Interrupts::set_affinity_among`]. Task.
    pub fn set_affinity_among(&self, among: &[Cpu]) -> Result<Moved, MoveError> {
        self.core.set_affinity_among(self.descriptor.irq, among)
    }

    /// The CPU that it is delivered to. Any.
    pub fn effective_affinity(&self) -> Cpu {
        self.descriptor.target()
    }

    /// Makes the interrupt pending as its device would, or drops what is pending at the controller.
    /// Any.
    pub fn set_pending(&self, pending: Pending) {
        self.while_installed(|_| {
            self.descriptor.source.set_pending(self.descriptor.hwirq, pending);
        });
    }

    /// Is it pending, at the endpoint or at the controller? `None` where the hardware cannot be
    /// asked. Any.
    pub fn is_pending(&self) -> Option<bool> {
        self.while_installed(|_| self.descriptor.source.is_pending(self.descriptor.hwirq))?
    }

    /// Number of handler runs. Any.
    pub fn count(&self) -> u64 {
        self.descriptor.counts.per_cpu().sum()
    }

    /// Number of redeliveries: it arrived while its handler ran elsewhere or was
    /// disabled. Any.
    pub fn redelivered(&self) -> u64 {
        self.descriptor.redelivered.load(Ordering::Relaxed)
    }

    fn interrupt(&self) -> Interrupt<'_> {
        self.core.interrupt(&self.descriptor)
    }

    /// The device's domain may be torn down before its handles are dropped.
    fn while_installed<T>(&self, act: impl FnOnce(&mut Control) -> T) -> Option<T> {
        self.interrupt().while_installed(act)
    }
}

impl Drop for IrqHandle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.core.release_handle(descriptor);
        }
    }
}

impl fmt::Debug for IrqHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqHandle").field("irq", &self.irq()).field("hwirq", &self.hwirq()).finish()
    }
}

/// A requested private interrupt. Dropping it follows the rules of [`IrqHandle`], for all CPUs; the
/// hardware is masked on the calling CPU alone, so each CPU calls
/// [`disable_here`](Self::disable_here) before.
#[must_use = "dropping the handle removes the handler"]
pub struct PerCpuHandle {
    core: Arc<Interrupts>,
    descriptor: TakenOnDrop<Descriptor>,
}

impl PerCpuHandle {
    pub(crate) fn new(core: Arc<Interrupts>, descriptor: Shared<Descriptor>) -> Self {
        Self { core, descriptor: TakenOnDrop::new(descriptor) }
    }

    /// The interrupt's number. Any.
    pub fn irq(&self) -> Irq {
        self.descriptor.irq
    }

    /// The interrupt as each CPU acknowledges it. Any.
    pub fn hwirq(&self) -> HwIrq {
        self.descriptor.hwirq
    }

    /// Lets the interrupt through on the calling CPU. Does not nest. Any; nothing on a thread that
    /// is no CPU.
    pub fn enable_here(&self) {
        self.core.interrupt(&self.descriptor).with_own_cell(|cell| {
            let resend = cell.enable();
            self.descriptor.unmask();
            if resend {
                self.descriptor.redeliver(&self.core.runtime);
            }
        });
    }

    /// Masks the interrupt on the calling CPU. Does not nest. Any; nothing on a thread that is no
    /// CPU.
    pub fn disable_here(&self) {
        self.core.interrupt(&self.descriptor).with_own_cell(|cell| {
            cell.disable();
            self.descriptor.mask();
        });
    }

    /// Number of handler runs on all CPUs together. Any.
    pub fn count(&self) -> u64 {
        self.descriptor.counts.per_cpu().sum()
    }
}

impl Drop for PerCpuHandle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.core.release_handle(descriptor);
        }
    }
}

impl fmt::Debug for PerCpuHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuHandle")
            .field("irq", &self.irq())
            .field("hwirq", &self.hwirq())
            .finish()
    }
}
