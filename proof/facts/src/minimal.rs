//! Facts from the smallest kernels. Each kernel reports one fact before it ends.

use serde::{Deserialize, Serialize};

/// A fact of one of the smallest kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinimalFact {
    /// The timer ticked.
    Ticked {
        /// Number of ticks.
        times: u32,
    },
    /// A device's first message arrived.
    Received {
        /// The message's vector.
        vector: u32,
    },
    /// A device's two vectors were moved between two CPUs while the device sent messages.
    Moved {
        /// Number of interrupts of each vector on each CPU.
        taken: [[u32; 2]; 2],
    },
    /// The messages of functions behind a bridge with its own MSI controller were taken.
    Chained {
        /// Number of messages of each function.
        taken: [u32; 3],
    },
    /// The kernel ran, and then restarted itself.
    Lived {
        /// Number of runs.
        lives: u64,
    },
    /// The functions behind conventional-PCI bridges received their messages.
    Bridged {
        /// Number of functions.
        functions: usize,
        /// Number of requester IDs that the functions share.
        bridges: usize,
        /// Total number of the functions' vectors.
        vectors: usize,
    },
}
