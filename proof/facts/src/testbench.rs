//! Facts from the test bench, in addition to the outcomes of its checks.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the test bench.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestbenchFact {
    /// The test bench requests that an error be injected at a port.
    WantsError {
        /// The port's identifier in QEMU.
        port: Text,
    },
}
