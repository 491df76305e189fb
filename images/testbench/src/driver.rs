//! What the tests ask of a device's driver.

use crate::report::{Outcome, Verdict};

/// A device's driver, as far as the tests need one.
pub(crate) trait Driver: Send + Sync {
    /// Returns the number of vectors that its driver uses.
    fn vectors(&self) -> u16;

    /// Has it an occasion to send at least one of its messages?
    fn fires(&self) -> bool {
        true
    }

    /// Does [`fire`](Self::fire) return before the handler ran?
    fn posts(&self) -> bool {
        true
    }

    /// Returns true if the message is on its way when [`fire`](Self::fire) returns. Otherwise
    /// another machine sends it later.
    fn prompt(&self, slot: u16) -> bool {
        let _ = slot;
        true
    }

    /// Returns true if the device may send each message twice, the second time a moment later.
    fn repeats(&self) -> bool {
        false
    }

    /// Takes the device into use: its vectors have handlers.
    fn start(&self) -> Outcome {
        Ok(())
    }

    /// Has the device send the message of `slot`; `false` if it has no occasion to. Task.
    fn fire(&self, slot: u16) -> Result<bool, Verdict>;

    /// Returns the address of the code of [`handle`](Self::handle), if its instructions can be
    /// counted.
    fn handler_address(&self) -> Option<usize> {
        None
    }

    /// Handles an interrupt of the device. Hard IRQ.
    fn handle(&self, slot: u16) {
        let _ = slot;
    }
}
