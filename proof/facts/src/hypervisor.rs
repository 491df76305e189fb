//! Facts of the hypervisor: its guests' ends, its counts and its trace.

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
        /// Cause of the end.
        how: Ending,
    },
    /// The moves of the guests between GICs, at the end.
    Moved {
        /// Number of moves.
        times: u64,
    },
    /// A mistake of a guest that the model has detected.
    Fault {
        /// Index of the guest.
        guest: usize,
        /// The mistake, as free text.
        fault: Text,
    },
    /// The SMMU confines the guests' devices.
    Confines {
        /// The stage that translates: 1 or 2.
        stage: u8,
    },
    /// A function of the machine that is not assigned to a guest.
    Withheld {
        /// The function's address: segment, bus, device and function.
        function: u32,
        /// The reason, as free text.
        reason: Text,
    },
    /// The SMMU denied an access, because its address is not mapped.
    Refused {
        /// The device's stream.
        stream: u32,
        /// Kind of the access.
        access: Access,
        /// Address of the access.
        address: u64,
    },
    /// A stream was cut off from memory after too many denied accesses.
    CutOff {
        /// The device's stream.
        stream: u32,
    },
    /// The number of a guest's exits with one reason, or of interrupts of one class, at the end.
    Count {
        /// Index of the guest.
        guest: usize,
        /// The reason or class.
        reason: Text,
        /// The number.
        times: u64,
        /// Nanoseconds of the longest exit.
        longest: u64,
    },
    /// A vCPU's exit, reported when it occurs.
    Exit {
        /// The counter's value.
        at: u64,
        /// Index of the guest.
        guest: usize,
        /// Index of the vCPU.
        vcpu: u32,
        /// The reason, under which the exit is counted.
        reason: Text,
        /// Operands of the trapped instruction, as free text.
        detail: Text,
    },
}

/// The end of a guest's machine.
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

/// Direction of a device's access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The device read.
    Read,
    /// The device wrote.
    Write,
}
