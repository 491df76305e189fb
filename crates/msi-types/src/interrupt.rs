//! Properties of one interrupt, wired or not.

/// Trigger mode of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// By a rising edge (or a message): pending until acknowledged.
    Edge,
    /// By a high level: pending while the source asserts it.
    Level,
}

/// Treatment of a pending state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pending {
    /// Make it pending, as the device's own message would.
    Set,
    /// Drop it.
    Clear,
}
