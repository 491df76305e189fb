//! Interrupt handlers, their argument and their result.

use crate::irq::dispatched::Dispatched;
use crate::number::Irq;
use alloc::collections::TryReserveError;
use doorbell_fallible::Shared;
use msi_types::{Cpu, HwIrq};

/// Dispatches vectors to their handlers, on behalf of a handler.
pub(crate) trait Dispatch {
    fn dispatch_chained(&self, cpu: Cpu, hwirq: HwIrq) -> Dispatched;
}

/// A handler's argument. Handlers run in hard-IRQ context.
pub struct IrqContext<'a> {
    pub(crate) irq: Irq,
    pub(crate) hwirq: HwIrq,
    pub(crate) cpu: Cpu,
    pub(crate) dispatcher: &'a dyn Dispatch,
}

impl IrqContext<'_> {
    /// Returns the interrupt's number.
    pub fn irq(&self) -> Irq {
        self.irq
    }

    /// Returns the number with which the root controller acknowledged the interrupt.
    pub fn hwirq(&self) -> HwIrq {
        self.hwirq
    }

    /// Returns the CPU that runs the handler.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Runs the handler of another vector, which this handler found in the registers of a chained
    /// controller. See [`Interrupts::dispatch`](crate::Interrupts::dispatch).
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn dispatch(&self, hwirq: HwIrq) -> Dispatched {
        self.dispatcher.dispatch_chained(self.cpu, hwirq)
    }
}

msi_types::debug_by!(
    IrqContext<'_> as "IrqContext",
    |it| {irq: it.irq, hwirq: it.hwirq, cpu: it.cpu}
);

/// A handler's result. Returning `()` means [`Handled`](Self::Handled).
#[doc(alias = "irqreturn_t")]
#[doc(alias = "IRQ_HANDLED")]
#[doc(alias = "IRQ_NONE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IrqReturn {
    /// The handler's device needed service.
    Handled,
    /// The handler's device did not need service. Either the interrupt is spurious, or another
    /// device on the same line raised it.
    None,
}

impl From<()> for IrqReturn {
    fn from((): ()) -> Self {
        Self::Handled
    }
}

/// The function that dispatch calls.
pub(crate) type Run = dyn Fn(&IrqContext<'_>) -> IrqReturn + Send + Sync;

/// A handler. Clones share one allocation.
#[derive(Clone)]
pub(crate) struct Handler(Shared<Run>);

impl Handler {
    /// Moves a handler to the heap.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The allocator is out of memory. The handler is dropped.
    pub(crate) fn try_new<R: Into<IrqReturn>>(
        run: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<Self, TryReserveError> {
        let run = move |context: &IrqContext<'_>| run(context).into();
        Shared::<Run>::try_unsized(run, |block| block).map(Self)
    }

    /// Returns the function, to be called in hard-IRQ context.
    #[inline]
    pub(crate) fn function(&self) -> &Run {
        &*self.0
    }
}
