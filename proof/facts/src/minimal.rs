//! Facts of the smallest kernels: each reports one, at its end.

use serde::{Deserialize, Serialize};

/// A fact of one of the smallest kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinimalFact {
    /// The timer ticked.
    Ticked {
        /// The number of times.
        times: u32,
    },
    /// A device's first message arrived.
    Received {
        /// The message's vector.
        vector: u32,
    },
    /// The kernel ran, and restarted itself.
    Lived {
        /// The number of runs.
        lives: u64,
    },
    /// The functions behind bridges to conventional PCI received their messages.
    Bridged {
        /// The number of functions.
        functions: usize,
        /// The number of requester IDs that they share.
        bridges: usize,
        /// The number of all functions' vectors.
        vectors: usize,
    },
}
