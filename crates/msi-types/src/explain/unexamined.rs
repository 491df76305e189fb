//! What an explanation knows of each stage, and the parts of stages that it could not examine.

use super::Stage;
use core::fmt;

/// An explanation's knowledge of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum StageState {
    /// The stage has facts, and no obstacle.
    Passed,
    /// The obstacle is at this stage.
    Stopped,
    /// The stage is after the obstacle.
    NotReached,
    /// The interrupt does not pass the stage.
    NotApplicable,
    /// The stage was not examined, so it may have an obstacle that the explanation does not name.
    NotExamined,
}

/// A part of a stage that could not be examined, although the stage's other parts may have been.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Unexamined {
    /// The message that the device holds. Its store cannot be read back.
    StoredMessage,
    /// Bus Master Enable of the bridges between the function and the host.
    Bridges,
    /// The IOMMU's mapping of the doorbell. No layer of the driver maps it.
    Iommu,
    /// The state of the kernel's controller, because it could not be read.
    KernelController,
    /// The requester ID with which the device's messages arrive.
    Requester,
    /// The controller's cached copies of its tables. They are stale if the controller does not snoop
    /// and its driver does not clean the tables.
    TableCaches,
    /// The interrupt's pending state: hardware delivers its messages to the guest directly (GICv4).
    PendingState,
    /// The CPU's exception mask, `PSTATE.I`.
    ExceptionMask,
}

impl Unexamined {
    /// All parts, in the order of declaration and of their stages.
    pub const ALL: [Self; 8] = [
        Self::StoredMessage,
        Self::Bridges,
        Self::Iommu,
        Self::KernelController,
        Self::Requester,
        Self::TableCaches,
        Self::PendingState,
        Self::ExceptionMask,
    ];

    /// Returns the stage to which the part belongs.
    pub const fn stage(self) -> Stage {
        match self {
            Self::StoredMessage => Stage::Endpoint,
            Self::Bridges | Self::Iommu => Stage::Bus,
            Self::KernelController => Stage::Doorbell,
            Self::Requester => Stage::Translation,
            Self::TableCaches => Stage::Configuration,
            Self::PendingState => Stage::Pending,
            Self::ExceptionMask => Stage::Interface,
        }
    }
}

impl fmt::Display for Unexamined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoredMessage => "the message that the device holds",
            Self::Bridges => "Bus Master Enable of bridges",
            Self::Iommu => "the mapping of the doorbell in an IOMMU",
            Self::KernelController => {
                "the kernel's controller (it can be read while all vCPUs are stopped)"
            }
            Self::Requester => "the requester ID of the device's messages",
            Self::TableCaches => "the controller's copies of its tables",
            Self::PendingState => {
                "the pending state (hardware delivers the messages to the guest directly)"
            }
            Self::ExceptionMask => "PSTATE.I",
        })
    }
}
