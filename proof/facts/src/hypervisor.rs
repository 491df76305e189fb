//! Facts from the hypervisor: how its guests ended and its counters.

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
    /// The number of times that guests were moved from one GIC to another. The hypervisor reports
    /// this fact at its end.
    Moved {
        /// Number of moves.
        times: u64,
        /// Number of moves after which a guest's GIC used more memory than before. A guest that
        /// maps interrupts at many priorities can cause a few of them, a leak causes one per move.
        grown: u64,
    },
    /// A guest's mistake that the GIC model detected.
    Fault {
        /// Index of the guest.
        guest: usize,
        /// The mistake, as free text.
        fault: Text,
    },
    /// The SMMU confines the guests' devices.
    Confines {
        /// The translation stage in use, 1 or 2.
        stage: u8,
    },
    /// A function is assigned to a guest.
    Assigned {
        /// Index of the guest.
        guest: usize,
        /// The function's address on the machine: segment, bus, device and function.
        function: u32,
        /// The function's address in the guest.
        at: u32,
    },
    /// A function on the machine that isn't assigned to any guest.
    Withheld {
        /// The function's address: segment, bus, device and function.
        function: u32,
        /// The reason why the function isn't assigned, as free text.
        reason: Text,
    },
    /// Devices' messages are injected directly (GICv4).
    Direct {
        /// Index of the guest.
        guest: usize,
        /// Number of the guest's vPEs.
        vpes: usize,
    },
    /// Devices' messages are not injected directly, although the option is set.
    NotDirect {
        /// Index of the guest.
        guest: usize,
        /// The reason, as free text.
        reason: Text,
    },
    /// A function that is assigned to a guest must not assert its interrupt pin, so the guest sees
    /// none.
    NoIntx {
        /// The function's address on the machine: segment, bus, device and function.
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
    /// A stream was denied all access to memory because too many of its accesses had been denied.
    CutOff {
        /// The device's stream.
        stream: u32,
    },
    /// The machine ended because its time limit was over.
    TimeOver {
        /// A byte of input waits in the machine's UART although its interrupt has been cleared.
        silent_input: bool,
    },
    /// The number of a guest's exits for one reason, or of its interrupts of one class. The
    /// hypervisor reports this fact at its end.
    Count {
        /// Index of the guest.
        guest: usize,
        /// The reason for the exits, or the class of the interrupts.
        reason: Text,
        /// The number.
        times: u64,
        /// Duration of the longest exit in nanoseconds.
        longest: u64,
    },
    /// An exit of a vCPU, reported when it occurs.
    Exit {
        /// The counter's value.
        at: u64,
        /// Index of the guest.
        guest: usize,
        /// Index of the vCPU.
        vcpu: u32,
        /// The category under which the exit is counted.
        reason: Text,
        /// The operands of the trapped instruction, as free text.
        detail: Text,
    },
}

/// The way in which a guest's machine ended.
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

/// The direction of an access by a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The device read.
    Read,
    /// The device wrote.
    Write,
}
