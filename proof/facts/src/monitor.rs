//! Facts of the monitor that runs a guest under Linux's KVM.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorFact {
    /// Exits of the guest during all turns of an operation, as KVM counts them.
    Exits {
        /// The operation.
        operation: Text,
        /// Number of exits.
        exits: u64,
    },
    /// The monitor has ended.
    Ended {
        /// Exit status: 0 if the guest turned its machine off.
        status: u8,
    },
}
