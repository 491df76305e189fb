//! Reasons why an operating system has not set up a function's interrupts.

use super::Stage;
use crate::{DeviceId, RequesterId};

super::table::stages! {
    /// A reason why an operating system has not set up a function's interrupts, or has set them up
    /// in a way that contradicts firmware's description.
    pub enum SetupFault {
        Endpoint {
            /// No driver is bound to the function.
            NoDriver "no driver is bound to the function"
                => "load or bind a driver";
            /// The function can send neither MSI nor MSI-X messages.
            NoCapability "the function has no MSI or MSI-X capability"
                => "the function can only use INTx; route its pin in interrupt-map or _PRT";
            /// The kernel was started with an option that disables messages.
            TurnedOff "the kernel's command line disables MSI and MSI-X"
                => "remove `nomsi` from the option `pci=` of the kernel's command line";
            /// The kernel was started with an option that disables LPIs.
            LpisTurnedOff "the kernel's command line disables LPIs, and with them the ITS"
                => "remove `irqchip.gicv3_nolpi` from the kernel's command line";
            /// The function's driver has not allocated interrupts.
            NotAllocated "the function's driver has not allocated an interrupt"
                => "look for the driver's errors in the kernel's log";
            /// The function's driver passes the function to a program, which has not enabled
            /// interrupts.
            NoProgram "the function's driver leaves interrupts to a program, which has enabled none"
                => "start the program that uses the function, such as a VMM";
            /// The function's driver uses INTx although messages are possible.
            MessagesUnused
                "the function's driver uses INTx, although the function and a controller support \
                 MSI"
                => "look for an option of the driver that selects INTx, or for its errors in the \
                 kernel's log";
            /// INTx is in use, but Interrupt Disable is set in the function's Command register.
            IntxDisabled
                "Interrupt Disable is 1 in the function's Command register, and INTx is in use"
                => "clear Interrupt Disable in the Command register";
        }
        Bus {
            /// The kernel does not permit messages from the function or from a bridge above it.
            Forbidden "the kernel does not permit MSI from the function, or from a bridge above it"
                => "look for a quirk of the bridge in the kernel's log, and at `msi_bus` in sysfs";
            /// Firmware's IOMMU map does not contain the requester, and no message has arrived.
            NoStream {
                /// The sender of the messages.
                requester: RequesterId,
            }
                "firmware's IOMMU map has no entry for requester {requester}; an IOMMU aborts the \
                 writes of requesters that the kernel has not configured, and no message has \
                 arrived"
                => "add the requester to iommu-map (devicetree), or to the IORT's mappings to the \
                 SMMU (ACPI)";
        }
        Doorbell {
            /// Firmware names no MSI controller for the requester.
            NoController {
                /// The sender of the messages.
                requester: RequesterId,
            } "firmware names no MSI controller for requester {requester}"
                => "add msi-map or msi-parent to the host bridge (devicetree), or a mapping to its \
                 IORT node (ACPI)";
            /// Firmware's MSI map has no entry for the requester.
            OutsideMap {
                /// The sender of the messages.
                requester: RequesterId,
            } "firmware's MSI map has no entry for requester {requester}"
                => "add the requester to msi-map (devicetree), or to the IORT's mappings to the \
                 ITS group (ACPI)";
            /// Firmware's entry for the requester names no MSI controller, or a DeviceID of more
            /// than 32 bits.
            BrokenEntry {
                /// The sender of the messages.
                requester: RequesterId,
            }
                "firmware's entry for requester {requester} names no MSI controller, or a DeviceID \
                 of more than 32 bits"
                => "correct the entry of msi-map (devicetree) or of the IORT (ACPI)";
            /// Firmware disables the MSI controller that it names.
            ControllerDisabled "firmware disables the MSI controller that it names for the function"
                => "remove `status = \"disabled\"` from the controller's node";
            /// No device uses the controller that firmware names.
            ControllerUnused
                "no device uses the MSI controller that firmware names, so its driver may not have \
                 started"
                => "look for the controller (ITS, GICv2m, MBI) in the kernel's log";
            /// The function is a root port, whose own messages the controller inside its host
            /// bridge does not take, and none has arrived.
            RootPort
                "the controller inside the host bridge takes messages from below its root ports, \
                 not their own, and none has arrived"
                => "let the root port's services use its pin (`pcie_pme=nomsi`), or do without \
                 them; but keep the port's MSI Enable set on i.MX 6, 7, 8MM and 8MQ, because it \
                 also lets messages from below interrupt";
            /// The kernel uses an MSI controller of a different kind from the one that firmware
            /// names.
            OtherController
                "the kernel does not use the MSI controller that firmware names for the function"
                => "find out whether the kernel was started with other firmware tables";
        }
        Translation {
            /// Firmware states no DeviceID, the kernel uses the requester ID, and no message has
            /// arrived.
            AssumedDeviceId {
                /// The DeviceID that the kernel uses.
                device: DeviceId,
            }
                "firmware states no DeviceID for the function; the kernel uses the requester ID, \
                 {device}, and no message has arrived"
                => "add the requester to msi-map (devicetree), or to the IORT's mappings to the \
                 ITS group (ACPI)";
            /// The DeviceID that firmware states lies outside the ITS's device table.
            BeyondTable {
                /// The DeviceID that firmware states.
                device: DeviceId,
                /// Number of DeviceIDs that the table has room for.
                room: u64,
            } "the ITS's device table has {room:#x} entries, and firmware states DeviceID {device}"
                => "correct the entry of msi-map (devicetree) or of the IORT (ACPI)";
        }
    }
}

impl core::error::Error for SetupFault {}

impl SetupFault {
    /// Returns the stage that the interrupt does not pass.
    pub const fn stage(self) -> Stage {
        self.stated_stage()
    }
}
