//! Facts from the VMM that runs a guest on Linux's KVM.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact reported by the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorFact {
    /// Number of exits that KVM counted during all iterations of an operation.
    Exits {
        /// The operation.
        operation: Text,
        /// Number of exits.
        exits: u64,
    },
    /// The VMM has exited.
    Ended {
        /// Exit status, which is 0 if the guest turned its machine off.
        status: u8,
    },
}
