//! Facts from the hypervisor: how its guests ended and its counters.
#![expect(missing_docs, reason = "a fact's documentation lists its fields")]

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the hypervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HypervisorFact {
    /// A guest's machine has ended.
    ///
    /// - `guest`: Index of the guest.
    /// - `how`: Why it ended.
    Ended { guest: usize, how: Ending },
    /// The number of times that guests were moved from one GIC to another. The hypervisor reports
    /// this fact at its end.
    ///
    /// - `times`: Number of moves.
    /// - `grown`: Number of moves after which a guest's GIC used more memory than before. A guest
    ///   that maps interrupts at many priorities can cause a few of them, a leak causes one per
    ///   move.
    Moved { times: u64, grown: u64 },
    /// A guest's mistake that the GIC model detected.
    ///
    /// - `guest`: Index of the guest.
    /// - `fault`: The mistake, as free text.
    Fault { guest: usize, fault: Text },
    /// The SMMU confines the guests' devices.
    ///
    /// - `stage`: The translation stage in use, 1 or 2.
    Confines { stage: u8 },
    /// A function is assigned to a guest.
    ///
    /// - `guest`: Index of the guest.
    /// - `function`: The function's address on the machine: segment, bus, device and function.
    /// - `at`: The function's address in the guest.
    Assigned { guest: usize, function: u32, at: u32 },
    /// A function on the machine that isn't assigned to any guest.
    ///
    /// - `function`: The function's address: segment, bus, device and function.
    /// - `reason`: The reason why the function isn't assigned, as free text.
    Withheld { function: u32, reason: Text },
    /// Devices' messages are injected directly (GICv4).
    ///
    /// - `guest`: Index of the guest.
    /// - `vpes`: Number of the guest's vPEs.
    Direct { guest: usize, vpes: usize },
    /// Devices' messages are not injected directly, although the option is set.
    ///
    /// - `guest`: Index of the guest.
    /// - `reason`: The reason, as free text.
    NotDirect { guest: usize, reason: Text },
    /// A function that is assigned to a guest must not assert its interrupt pin, so the guest sees
    /// none.
    ///
    /// - `function`: The function's address on the machine: segment, bus, device and function.
    /// - `reason`: The reason, as free text.
    NoIntx { function: u32, reason: Text },
    /// The SMMU denied an access to an unmapped address.
    ///
    /// - `stream`: The device's stream.
    /// - `access`: Kind of the access.
    /// - `address`: Address of the access.
    Refused { stream: u32, access: Access, address: u64 },
    /// A stream was denied all access to memory because too many of its accesses had been denied.
    ///
    /// - `stream`: The device's stream.
    CutOff { stream: u32 },
    /// The number of a guest's exits for one reason, or of its interrupts of one class. The
    /// hypervisor reports this fact at its end.
    ///
    /// - `guest`: Index of the guest.
    /// - `reason`: The reason for the exits, or the class of the interrupts.
    /// - `times`: The number.
    /// - `longest`: Duration of the longest exit in nanoseconds.
    Count { guest: usize, reason: Text, times: u64, longest: u64 },
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
