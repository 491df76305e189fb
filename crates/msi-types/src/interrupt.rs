//! Properties of one interrupt, wired or not.

/// Trigger mode of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// Triggered by a rising edge or a message: pending until acknowledged.
    Edge,
    /// Triggered by a high level: pending while the source asserts it.
    Level,
}

/// Operation on the pending state of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pending {
    /// Make the interrupt pending, as the device's own message would.
    Set,
    /// Clear the pending state.
    Clear,
}
