//! The seam to the controller's stages.

use super::Explanation;
use crate::{DeviceId, Line, MsiMessage};

/// A controller that explains what becomes of its inputs. Message stores and routes append its
/// explanation to theirs.
///
/// Implementations must not send the message or change the line.
pub trait ExplainInput: Send + Sync {
    /// Explains what stops a message of this sender, from its doorbell on. `None` is a sender
    /// without a DeviceID.
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation;

    /// Explains what stops the interrupt of a line.
    fn explain_line(&self, line: Line) -> Explanation;
}
