//! Lines, and messages from devices without an identity.

use super::{Vgic, line_delivery};
use crate::monitor::AccessWidth;
use msi_types::{Delivery, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};

/// Writes to a doorbell that doesn't need the sender's identity. Returns `Pending` if the interrupt
/// is pending afterwards, enabled or not, and `Blocked` if it isn't (e.g. because the message
/// cleared it). For any other address, returns `NoDoorbell` without any effect.
impl SignalMsi<NoIdentity> for Vgic {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        self.frame_at(message.address)
            .and_then(|(frame, offset)| {
                self.ring(frame, offset, AccessWidth::Word, message.data.into())
            })
            .unwrap_or(Delivery::NoDoorbell)
    }
}

impl SetLine for Vgic {
    /// Drives a line to a level. Returns `Pending` if the interrupt is pending afterwards, enabled
    /// or not, `Blocked` if it is not, and `NoDoorbell` if the machine doesn't have this line.
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        line_delivery(self.wired.drive(line, level))
    }

    /// Latches an edge on a line. Returns the same results as [`set_line`](Self::set_line).
    ///
    /// The edge is latched by one atomic operation, so no edge is lost if several threads signal
    /// one line concurrently. KVM's `KVM_IRQ_LINE` also latches an edge for each level of 1, but
    /// the level of 0 that follows lowers a level-sensitive line; this method leaves the level
    /// unchanged.
    fn pulse(&self, line: Line) -> Delivery {
        line_delivery(self.wired.pulse(line))
    }
}
