//! An interrupt's flow, and its handler's initial state.

use core::fmt;

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
