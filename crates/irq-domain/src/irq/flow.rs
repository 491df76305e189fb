//! An interrupt's flow, and its handler's initial state.

use core::fmt;

/// How an interrupt is handled, from its arrival until its handler returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flow {
    /// Edges and messages. An arrival while the handler is running or disabled is recorded, and
    /// sent again later.
    Edge,
    /// A level. It arrives again by itself while it is asserted, so arrivals needn't be recorded.
    Level,
    /// Private to each CPU. The handler may run on several CPUs concurrently.
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
    /// Enabled by the request.
    #[default]
    Enabled,
    /// Disabled until the first [`IrqHandle::enable`](crate::IrqHandle::enable). Earlier arrivals
    /// are recorded.
    Disabled,
}
