//! Interrupt handlers: their argument, their result, the flow of the interrupt, the result of its
//! dispatch, and its number and names for diagnostics and statistics.

use crate::name::Irq;
use alloc::collections::TryReserveError;
use core::fmt;
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

/// Result of dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dispatched {
    /// The handler ran.
    Handled,
    /// The handler did not run yet, but the arrival is not lost.
    Deferred(Deferral),
    /// The vector has no handler, or the handler found nothing to do.
    Unhandled(Unhandled),
}

/// The reason why a handler did not run immediately. No arrival is lost: an edge or message is sent
/// again through the controller, to the interrupt's target at that time, and a level stays
/// asserted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Deferral {
    /// The handler is already running on another CPU (or on this one, in the context that the
    /// caller interrupted). The interrupt is sent again when the handler returns.
    Running,
    /// The interrupt is disabled, and is sent again when it is enabled.
    Disabled,
}

/// The reason why an arrival was not handled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unhandled {
    /// The vector no longer has a handler. The arrival was already in flight when the handler was
    /// dropped.
    Released,
    /// The vector never had a handler; this is a spurious interrupt.
    Unknown,
    /// The handler ran, but found nothing to do: [`IrqReturn::None`](crate::IrqReturn::None).
    IrqNone,
    /// The CPU number is not below the number of CPUs in the core's configuration.
    UnknownCpu,
}

/// The treatment of an interrupt from its arrival until its handler returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flow {
    /// Edges and messages. An arrival while the handler is running or disabled is recorded, and
    /// sent again later.
    Edge,
    /// A level. The interrupt arrives again for as long as the level is asserted, so arrivals need
    /// not be recorded.
    Level,
    /// An interrupt that is private to each CPU. The handler may run on several CPUs concurrently.
    PerCpu,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Edge => "edge",
            Self::Level => "level",
            Self::PerCpu => "per-cpu",
        })
    }
}

/// A new handler's initial state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Start {
    /// The handler is enabled by the request.
    #[default]
    Enabled,
    /// The handler is disabled until the first [`IrqHandle::enable`](crate::IrqHandle::enable), and
    /// earlier arrivals are recorded.
    Disabled,
}
