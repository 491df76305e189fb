//! Interface between tests and a device's driver.

use crate::report::{Outcome, Verdict};

/// A minimal driver of a device for tests.
pub(crate) trait Driver: Send + Sync {
    /// Returns the number of vectors that the driver uses.
    fn vectors(&self) -> u16;

    /// Returns `true` if the driver can make the device send at least one of its messages.
    fn fires(&self) -> bool {
        true
    }

    /// Returns `true` if [`fire`](Self::fire) returns before the handler has run.
    fn posts(&self) -> bool {
        true
    }

    /// Initializes the device. The device's vectors already have handlers.
    fn start(&self) -> Outcome {
        Ok(())
    }

    /// Makes the device send the message of `slot`, or returns `false` if the driver cannot do so.
    /// Must be called from a task.
    fn fire(&self, slot: u16) -> Result<bool, Verdict>;

    /// Handles an interrupt of the device. Called in hard IRQ context.
    fn handle(&self, slot: u16) {
        let _ = slot;
    }
}
