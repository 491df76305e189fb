//! Facts from the guest whose device accesses memory outside the guest.

use serde::{Deserialize, Serialize};

/// A fact of the guest with the stray device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrayDmaFact {
    /// The device wrote to the guest's memory.
    Inside {
        /// The vendor ID that the device wrote.
        vendor: u16,
    },
    /// The outcome of a device command that followed accesses to memory outside the guest.
    AfterOutside {
        /// Set if the device completed the command.
        completes: bool,
    },
}
