//! Reasons why an operating system has not set up a function's interrupts.

use super::Stage;
use super::table::{Code, Statement};
use crate::{DeviceId, RequesterId};

super::table::stages! {
    /// A reason why an operating system has not set up a function's interrupts, or has set them up
    /// in a way that contradicts firmware's description.
    pub enum SetupFault {
        Endpoint {
            /// No driver is bound to the function.
            501 NoDriver "no driver is bound to the function"
                => "load or bind a driver";
            /// The function can send neither MSI nor MSI-X messages.
            502 NoCapability "the function has no MSI or MSI-X capability"
                => "the function can only use INTx; route its pin in interrupt-map or _PRT";
            /// The kernel was started with an option that disables messages.
            503 TurnedOff "the kernel's command line disables MSI and MSI-X"
                => "remove `nomsi` from the option `pci=` of the kernel's command line";
            /// The kernel was started with an option that disables LPIs.
            504 LpisTurnedOff "the kernel's command line disables LPIs, and with them the ITS"
                => "remove `irqchip.gicv3_nolpi` from the kernel's command line";
            /// The function's driver has not allocated interrupts.
            505 NotAllocated "the function's driver has not allocated an interrupt"
                => "look for the driver's errors in the kernel's log";
            /// The function's driver passes the function to a program, which has not enabled
            /// interrupts.
            506 NoProgram "the function's driver leaves interrupts to a program, which has enabled none"
                => "start the program that uses the function, such as a VMM";
            /// The function's driver uses INTx although messages are possible.
            507 MessagesUnused
                "the function's driver uses INTx, although the function and a controller support \
                 MSI"
                => "look for an option of the driver that selects INTx, or for its errors in the \
                 kernel's log";
            /// Firmware disables the host bridge or the device itself.
            520 RequesterDisabled "firmware disables the device, or the host bridge above it"
                => "remove `status = \"disabled\"` from its node, or from the bus above it";
            /// INTx is in use, but Interrupt Disable is set in the function's Command register.
            508 IntxDisabled
                "Interrupt Disable is 1 in the function's Command register, and INTx is in use"
                => "clear Interrupt Disable in the Command register";
        }
        Bus {
            /// The kernel does not permit messages from the function or from a bridge above it.
            509 Forbidden "the kernel does not permit MSI from the function, or from a bridge above it"
                => "look for a quirk of the bridge in the kernel's log, and at `msi_bus` in sysfs";
            /// Firmware's IOMMU map does not contain the requester, and no message has arrived.
            510 NoStream {
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
            511 NoController {
                /// The sender of the messages.
                requester: RequesterId,
            } "firmware names no MSI controller for requester {requester}"
                => "add msi-map or msi-parent to the host bridge (devicetree), or a mapping to its \
                 IORT node (ACPI)";
            /// The node of a device outside PCI names no MSI controller.
            523 NoParent "the device's node names no MSI controller"
                => "add msi-parent to the node (devicetree), or a mapping to the ITS group to its \
                 IORT node (ACPI); a device without messages uses its wired interrupts";
            /// The reference of a device outside PCI leads to no MSI controller, or states no
            /// DeviceID.
            524 BrokenParent
                "the device's reference leads to no MSI controller, or states no DeviceID for an \
                 ITS"
                => "correct msi-parent of the node (devicetree), or its IORT node's mapping (ACPI)";
            /// Firmware's MSI map has no entry for the requester.
            512 OutsideMap {
                /// The sender of the messages.
                requester: RequesterId,
            } "firmware's MSI map has no entry for requester {requester}"
                => "add the requester to msi-map (devicetree), or to the IORT's mappings to the \
                 ITS group (ACPI)";
            /// Firmware's entry for the requester names no MSI controller, or a DeviceID of more
            /// than 32 bits.
            513 BrokenEntry {
                /// The sender of the messages.
                requester: RequesterId,
            }
                "firmware's entry for requester {requester} names no MSI controller, or a DeviceID \
                 of more than 32 bits"
                => "correct the entry of msi-map (devicetree) or of the IORT (ACPI)";
            /// Firmware disables the MSI controller that it names.
            514 ControllerDisabled "firmware disables the MSI controller that it names for the function"
                => "remove `status = \"disabled\"` from the controller's node, or from the bus \
                 above it";
            /// The MSI controller that firmware names lacks the property that marks it as one.
            521 ControllerUnmarked
                "the MSI controller that firmware names for the function lacks `msi-controller`, \
                 so that drivers ignore it"
                => "add `msi-controller` to the controller's node";
            /// Firmware describes Direct LPI next to an ITS, which makes its registers
            /// IMPLEMENTATION DEFINED.
            522 ControllerBesideIts
                "firmware names Direct LPI for the function, which an ITS in the machine excludes"
                => "name the ITS, or describe Direct LPI without an ITS";
            /// No device uses the controller that firmware names.
            515 ControllerUnused
                "no device uses the MSI controller that firmware names, so its driver may not have \
                 started"
                => "look for the controller (ITS, GICv2m, MBI) in the kernel's log";
            /// The function is a root port, whose own messages the controller inside its host
            /// bridge does not take, and none has arrived.
            516 RootPort
                "the controller inside the host bridge takes messages from below its root ports, \
                 not their own, and none has arrived"
                => "let the root port's services use its pin (`pcie_pme=nomsi`), or do without \
                 them; but keep the port's MSI Enable set on i.MX 6, 7, 8MM and 8MQ, because it \
                 also lets messages from below interrupt";
            /// The kernel uses an MSI controller of a different kind from the one that firmware
            /// names.
            517 OtherController
                "the kernel does not use the MSI controller that firmware names for the function"
                => "find out whether the kernel was started with other firmware tables";
        }
        Translation {
            /// Firmware states no DeviceID, the kernel uses the requester ID, and no message has
            /// arrived.
            518 AssumedDeviceId {
                /// The DeviceID that the kernel uses.
                device: DeviceId,
            }
                "firmware states no DeviceID for the function; the kernel uses the requester ID, \
                 {device}, and no message has arrived"
                => "add the requester to msi-map (devicetree), or to the IORT's mappings to the \
                 ITS group (ACPI)";
            /// The DeviceID that firmware states lies outside the ITS's device table.
            519 BeyondTable {
                /// The DeviceID that firmware states.
                device: DeviceId,
                /// Number of DeviceIDs that the table has room for.
                room: u64,
            } "the ITS's device table has {room:#x} entries, and firmware states DeviceID {device}"
                => "correct the entry of msi-map (devicetree) or of the IORT (ACPI)";
        }
        Target {
            /// Firmware describes no CPU that it enables.
            525 NoCpu "firmware enables no CPU that could take the interrupt"
                => "correct the CPUs' nodes (devicetree), or set Enabled in their GICC structures \
                 (ACPI)";
        }
    }
}

impl core::error::Error for SetupFault {}

impl SetupFault {
    /// Returns the stage that the interrupt does not pass.
    pub const fn stage(self) -> Stage {
        self.stated_stage()
    }

    /// Returns the stable code.
    pub const fn code(self) -> Code {
        self.stated_code()
    }
}
