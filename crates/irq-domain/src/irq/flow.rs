//! Flow of an interrupt, and its initial state.

use core::fmt;

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
