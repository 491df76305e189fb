//! Reasons why an operating system has not set up a function's interrupts.

use super::Stage;
use crate::{DeviceId, RequesterId};

/// A reason why an operating system has not set up a function's interrupts, or has set them up in a
/// way that contradicts firmware's description.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SetupFault {
    // Endpoint.
    /// No driver is bound to the function.
    #[error("no driver is bound to the function")]
    NoDriver,
    /// The function can send neither MSI nor MSI-X messages.
    #[error("the function has no MSI or MSI-X capability")]
    NoCapability,
    /// The kernel was started with an option that disables messages.
    #[error("the kernel's command line disables MSI and MSI-X")]
    TurnedOff,
    /// The kernel was started with an option that disables LPIs.
    #[error("the kernel's command line disables LPIs, and with them the ITS")]
    LpisTurnedOff,
    /// The function's driver has not allocated interrupts.
    #[error("the function's driver has not allocated an interrupt")]
    NotAllocated,
    /// The function's driver passes the function to a program, which has not enabled interrupts.
    #[error("the function's driver leaves interrupts to a program, which has enabled none")]
    NoProgram,
    /// The function's driver uses INTx although messages are possible.
    #[error("the function's driver uses INTx, although the function and a controller support MSI")]
    MessagesUnused,
    /// INTx is in use, but Interrupt Disable is set in the function's Command register.
    #[error("Interrupt Disable is 1 in the function's Command register, and INTx is in use")]
    IntxDisabled,
    // Bus.
    /// The kernel does not permit messages from the function or from a bridge above it.
    #[error("the kernel does not permit MSI from the function, or from a bridge above it")]
    Forbidden,
    /// Firmware's IOMMU map does not contain the requester, and no message has arrived.
    #[error(
        "firmware's IOMMU map has no entry for requester {requester}; an IOMMU aborts the writes \
         of requesters that the kernel has not configured, and no message has arrived"
    )]
    NoStream {
        /// The sender of the messages.
        requester: RequesterId,
    },
    // Doorbell.
    /// Firmware names no MSI controller for the requester.
    #[error("firmware names no MSI controller for requester {requester}")]
    NoController {
        /// The sender of the messages.
        requester: RequesterId,
    },
    /// Firmware's MSI map has no entry for the requester.
    #[error("firmware's MSI map has no entry for requester {requester}")]
    OutsideMap {
        /// The sender of the messages.
        requester: RequesterId,
    },
    /// Firmware's entry for the requester names no MSI controller, or a DeviceID of more than 32
    /// bits.
    #[error(
        "firmware's entry for requester {requester} names no MSI controller, or a DeviceID of more \
         than 32 bits"
    )]
    BrokenEntry {
        /// The sender of the messages.
        requester: RequesterId,
    },
    /// Firmware disables the MSI controller that it names.
    #[error("firmware disables the MSI controller that it names for the function")]
    ControllerDisabled,
    /// No device uses the controller that firmware names.
    #[error(
        "no device uses the MSI controller that firmware names, so its driver may not have started"
    )]
    ControllerUnused,
    /// The function is a root port, whose own messages the controller inside its host bridge does
    /// not take, and none has arrived.
    #[error(
        "the controller inside the host bridge takes messages from below its root ports, not their \
         own, and none has arrived"
    )]
    RootPort,
    /// The kernel uses an MSI controller of a different kind from the one that firmware names.
    #[error("the kernel does not use the MSI controller that firmware names for the function")]
    OtherController,
    // Translation.
    /// Firmware states no DeviceID, the kernel uses the requester ID, and no message has arrived.
    #[error(
        "firmware states no DeviceID for the function; the kernel uses the requester ID, \
         {device}, and no message has arrived"
    )]
    AssumedDeviceId {
        /// The DeviceID that the kernel uses.
        device: DeviceId,
    },
    /// The DeviceID that firmware states lies outside the ITS's device table.
    #[error("the ITS's device table has {room:#x} entries, and firmware states DeviceID {device}")]
    BeyondTable {
        /// The DeviceID that firmware states.
        device: DeviceId,
        /// Number of DeviceIDs that the table has room for.
        room: u64,
    },
}

impl SetupFault {
    /// Returns the stage that the interrupt does not pass.
    pub const fn stage(self) -> Stage {
        match self {
            Self::NoDriver
            | Self::NoCapability
            | Self::TurnedOff
            | Self::LpisTurnedOff
            | Self::NotAllocated
            | Self::NoProgram
            | Self::MessagesUnused
            | Self::IntxDisabled => Stage::Endpoint,
            Self::Forbidden | Self::NoStream { .. } => Stage::Bus,
            Self::NoController { .. }
            | Self::OutsideMap { .. }
            | Self::BrokenEntry { .. }
            | Self::ControllerDisabled
            | Self::ControllerUnused
            | Self::RootPort
            | Self::OtherController => Stage::Doorbell,
            Self::AssumedDeviceId { .. } | Self::BeyondTable { .. } => Stage::Translation,
        }
    }

    /// Returns advice on how an administrator or firmware can remove the obstacle.
    pub(super) const fn fix(self) -> &'static str {
        match self {
            Self::NoDriver => "load or bind a driver",
            Self::NoCapability => {
                "the function can only use INTx; route its pin in interrupt-map or _PRT"
            }
            Self::TurnedOff => "remove `nomsi` from the option `pci=` of the kernel's command line",
            Self::LpisTurnedOff => "remove `irqchip.gicv3_nolpi` from the kernel's command line",
            Self::NotAllocated => "look for the driver's errors in the kernel's log",
            Self::NoProgram => "start the program that uses the function, such as a VMM",
            Self::MessagesUnused => {
                "look for an option of the driver that selects INTx, or for its errors in the \
                 kernel's log"
            }
            Self::IntxDisabled => "clear Interrupt Disable in the Command register",
            Self::Forbidden => {
                "look for a quirk of the bridge in the kernel's log, and at `msi_bus` in sysfs"
            }
            Self::NoStream { .. } => {
                "add the requester to iommu-map (devicetree), or to the IORT's mappings to the \
                 SMMU (ACPI)"
            }
            Self::NoController { .. } => {
                "add msi-map or msi-parent to the host bridge (devicetree), or a mapping to its \
                 IORT node (ACPI)"
            }
            Self::OutsideMap { .. } | Self::AssumedDeviceId { .. } => {
                "add the requester to msi-map (devicetree), or to the IORT's mappings to the ITS \
                 group (ACPI)"
            }
            Self::BrokenEntry { .. } | Self::BeyondTable { .. } => {
                "correct the entry of msi-map (devicetree) or of the IORT (ACPI)"
            }
            Self::ControllerDisabled => "remove `status = \"disabled\"` from the controller's node",
            Self::ControllerUnused => {
                "look for the controller (ITS, GICv2m, MBI) in the kernel's log"
            }
            Self::RootPort => {
                "let the root port's services use its pin (`pcie_pme=nomsi`), or do without them"
            }
            Self::OtherController => {
                "find out whether the kernel was started with other firmware tables"
            }
        }
    }
}
