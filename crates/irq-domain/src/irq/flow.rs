//! IRQ numbers, flows, and results of dispatch.

use core::fmt;
use core::marker::PhantomData;
use msi_types::{Cpu, HwIrq};

/// An IRQ number: the core's own name of an interrupt, dense from 0, used again after it was freed.
/// Never an INTID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Irq(u32);

impl Irq {
    /// The IRQ with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Irq({})", self.0)
    }
}

impl fmt::Display for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Handling of an interrupt between its arrival and the end of its handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flow {
    /// Edges and messages: what arrives while the handler runs or is disabled is sent again
    /// afterwards.
    Edge,
    /// A level: while it is asserted, it arrives again by itself; nothing is remembered.
    Level,
    /// Private to each CPU: the handler runs on several CPUs at once.
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

/// Argument of a handler, which runs in hard-IRQ context.
#[derive(Debug)]
pub struct IrqContext<'a> {
    pub(crate) irq: Irq,
    pub(crate) hwirq: HwIrq,
    pub(crate) cpu: Cpu,
    /// Ends with the handler's run.
    pub(crate) run: PhantomData<&'a ()>,
}

impl IrqContext<'_> {
    /// The interrupt.
    pub fn irq(&self) -> Irq {
        self.irq
    }

    /// The interrupt as the root controller acknowledged it.
    pub fn hwirq(&self) -> HwIrq {
        self.hwirq
    }

    /// The CPU on which the handler runs.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }
}

/// Result of a handler. A handler that returns nothing returns
/// [`Handled`](Self::Handled).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IrqReturn {
    /// Its device wanted something.
    Handled,
    /// Its device wanted nothing: the interrupt is another's, or nobody's.
    None,
}

impl From<()> for IrqReturn {
    fn from((): ()) -> Self {
        Self::Handled
    }
}

/// Initial state of a new handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Start {
    /// The interrupt is let through by the request.
    #[default]
    Enabled,
    /// It is let through by the first [`IrqHandle::enable`](crate::IrqHandle::enable). What arrives
    /// before is remembered.
    Disabled,
}

/// Result of dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dispatched {
    /// The handler ran.
    Handled,
    /// The handler did not run now.
    Deferred(Deferral),
    /// There was no handler to run, or it found nothing to do.
    Unhandled(Unhandled),
}

/// A handler did not run at once. Nothing is lost. An edge or message is sent again through the
/// controller, to wherever the interrupt is routed by then; a level is still asserted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Deferral {
    /// It runs on another CPU (or below the caller on this one). Sent again when it returns.
    Running,
    /// It is disabled. Sent again when it is enabled.
    Disabled,
}

/// An arrival was not handled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unhandled {
    /// The vector had a handler before: the arrival was under way when that was dropped.
    Released,
    /// The vector never had a handler: spurious.
    Unknown,
    /// The handler ran, and says that its device wanted nothing: [`IrqReturn::None`].
    IrqNone,
    /// The caller is not one of the CPUs that the core was made for.
    UnknownCpu,
}
