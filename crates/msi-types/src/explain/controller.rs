//! The interface through which message stores and routes reach their controller's explanations.

use super::Explanation;
use crate::{DeviceId, Line, MsiMessage};

/// An interrupt controller that explains why an interrupt does not get from its inputs to a CPU.
/// Message stores and routes append this explanation to their own.
///
/// Implementations must not send the message or change the line.
pub trait ExplainInput: Send + Sync {
    /// Explains what stops a message from this sender, from its doorbell on. `sender` is `None` if
    /// the message has no DeviceID.
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation;

    /// Explains what stops a line's interrupt.
    fn explain_line(&self, line: Line) -> Explanation;
}
