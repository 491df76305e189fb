//! Facts from the hypervisor: how its guests ended, its counts, and its trace.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the hypervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HypervisorFact {
    /// A guest's machine has ended.
    Ended {
        /// Index of the guest.
        guest: usize,
        /// Why it ended.
        how: Ending,
    },
    /// The guests' moves between GICs. Reported at the end.
    Moved {
        /// Number of moves.
        times: u64,
    },
    /// A guest's mistake that the model detected.
    Fault {
        /// Index of the guest.
        guest: usize,
        /// The mistake, as free text.
        fault: Text,
    },
    /// The SMMU confines the guests' devices.
    Confines {
        /// The stage that does the translation: 1 or 2.
        stage: u8,
    },
    /// A function on the machine that isn't assigned to any guest.
    Withheld {
        /// The function's address: segment, bus, device and function.
        function: u32,
        /// The reason, as free text.
        reason: Text,
    },
    /// The SMMU denied an access to an unmapped address.
    Refused {
        /// The device's stream.
        stream: u32,
        /// Kind of the access.
        access: Access,
        /// Address of the access.
        address: u64,
    },
    /// A stream was cut off from memory because too many of its accesses were denied.
    CutOff {
        /// The device's stream.
        stream: u32,
    },
    /// The number of a guest's exits for one reason, or of its interrupts of one class. Reported at
    /// the end.
    Count {
        /// Index of the guest.
        guest: usize,
        /// The reason or class.
        reason: Text,
        /// The number.
        times: u64,
        /// Duration of the longest exit in nanoseconds.
        longest: u64,
    },
    /// A vCPU exit, reported as it happens.
    Exit {
        /// The counter's value.
        at: u64,
        /// Index of the guest.
        guest: usize,
        /// Index of the vCPU.
        vcpu: u32,
        /// The reason under which this exit is counted.
        reason: Text,
        /// The trapped instruction's operands, as free text.
        detail: Text,
    },
}

/// How a guest's machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET.
    Reset,
    /// A physical SError.
    SystemError,
}

/// The direction of a device access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The device read.
    Read,
    /// The device wrote.
    Write,
}
