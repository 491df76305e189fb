//! Facts from a guest whose instructions are logged while it takes interrupts.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of a watched guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchedFact {
    /// The guest waits for a line of input. After reading that line, the guest takes the
    /// interrupts.
    Ready {
        /// Address of the interrupt handler, in hexadecimal digits.
        handler: Text,
    },
    /// The guest has taken the interrupts.
    Done,
}
