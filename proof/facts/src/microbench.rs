//! Facts from the guest that measures its own operations.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the microbenchmark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MicrobenchFact {
    /// The measurement of an operation begins.
    Measures {
        /// The operation.
        operation: Text,
    },
    /// An operation was measured.
    Cost {
        /// The operation.
        operation: Text,
        /// Mean time of one iteration in nanoseconds.
        nanoseconds: u64,
    },
    /// A sleeping CPU was woken.
    Woken {
        /// Number of times.
        times: u64,
    },
}
