//! The flow of an interrupt, and the initial state of its handler.

use core::fmt;

/// Handling of an interrupt between its arrival and the end of its handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flow {
    /// Edges and messages: an arrival is recorded while the handler runs or is disabled, and sent
    /// again afterwards.
    Edge,
    /// A level: it arrives again by itself while it is asserted, so arrivals are not recorded.
    Level,
    /// Private to each CPU: the handler may run on several CPUs concurrently.
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

/// Initial state of a new handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Start {
    /// The request enables the interrupt.
    #[default]
    Enabled,
    /// The first [`IrqHandle::enable`](crate::IrqHandle::enable) enables the interrupt. Earlier
    /// arrivals are recorded.
    Disabled,
}
