//! The interface through which message stores and routes reach their controller's explanations.

use super::Explanation;
use crate::{DeviceId, Line, MsiMessage};

/// An interrupt controller that explains why an interrupt does not reach a CPU from the
/// controller's inputs. Message stores and routes append this explanation to their own.
///
/// Implementations must not send the message or change the line.
pub trait ExplainInput: Send + Sync {
    /// Explains what stops a message from this sender, starting at the message's doorbell. `sender`
    /// is `None` if the message has no DeviceID.
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation;

    /// Explains what stops the interrupt of this line.
    fn explain_line(&self, line: Line) -> Explanation;
}
