//! Reasons why an interrupt does not pass a stage.

use super::table::{Code, Statement};
use super::words::{Lost, by, other, other_devices};
use super::{SetupFault, Stage, TableRegister};
use crate::pci::MsiGate;
use crate::{Cpu, DeviceId, EventId, Gsi, HwIrq, MsiMessage, RequesterId};
use core::fmt;

/// An interrupt group of the GIC, by its number in `ICC_IGRPEN<n>_EL1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Group {
    /// Group 0.
    Zero,
    /// Group 1.
    One,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "0",
            Self::One => "1",
        })
    }
}

super::table::stages! {
    /// A reason why an interrupt does not pass a stage. The fields hold the values of registers,
    /// tables or objects at the time of the observation. Register names are those of a GICv3; a
    /// GICv2 has the equivalent fields in `GICC_CTLR`, `GICC_PMR`, `GICC_RPR` and
    /// `GICD_ITARGETSR<n>`.
    pub enum Obstacle {
        Endpoint {
            /// The vector does not exist.
            401 NoVector {
                /// The vector.
                vector: u16,
                /// Number of vectors of the device.
                vectors: u16,
            } "vector {vector} does not exist; the device has {vectors}"
                => "use a vector below the table size, or request more vectors";
            /// The function's registers read as all ones, because it was removed or has no power.
            402 Absent "the function does not respond: its registers read as all ones"
                => "return the function to D0, or detach its driver if it was removed";
            /// MSI or MSI-X is disabled in the function's Message Control.
            403 MessagesDisabled "MSI or MSI-X is disabled in the function's Message Control"
                => "store the messages, which a reset clears, then set MSI Enable or MSI-X Enable \
                 in Message Control";
            /// MSI and MSI-X are both enabled, which PCI leaves undefined.
            404 BothEnabled "MSI and MSI-X are both enabled in the function's Message Control registers"
                => "clear MSI Enable or MSI-X Enable";
            /// The function mask of Message Control is set.
            405 FunctionMasked "the function mask in Message Control is set"
                => "clear Function Mask in Message Control";
            /// The vector is masked in the table or capability.
            406 VectorMasked {
                /// The vector.
                vector: u16,
                /// The vector's pending bit is set, so the device will send its message when the
                /// vector is unmasked.
                pending: bool,
            }
                "vector {vector} is masked{}" (
                    if pending { ", and its pending bit is set" } else { "" }
                )
                => "clear the mask bit of the vector";
            /// The driver has not stored a message: the address is 0.
            407 NoMessage "the vector holds no message"
                => "store a message in the vector before unmasking it";
            /// The endpoint holds a message that differs from the one that its driver stored.
            408 MessageDiffers {
                /// The message that the endpoint holds.
                stored: MsiMessage,
                /// The message that the driver stored.
                expected: MsiMessage,
            }
                "sends {:#x} to {:#x}, but its driver stored {:#x} for {:#x}{}" (
                    stored.data, stored.address, expected.data, expected.address,
                    Lost::of(stored, expected)
                );
            /// A pulse on the interrupt's line was lost, because the input is level-sensitive.
            409 PulseLost {
                /// The INTID.
                interrupt: HwIrq,
            }
                "a pulse on the line of INTID {interrupt} was lost, because the input is \
                 level-sensitive"
                => "make the interrupt edge-triggered in GICD_ICFGR<n>, or hold the line high \
                 until the interrupt is served";
            /// An operating system has not set up the interrupt, or has set it up in a way that
            /// contradicts firmware's description.
            410 Setup(fault: SetupFault) "{fault}";
        }
        Bus {
            /// Bus Master Enable is clear in the function's Command register.
            411 BusMasterDisabled "Bus Master Enable is 0 in the function's Command register"
                => "set Bus Master Enable, without which a function cannot send messages";
            /// Bus Master Enable is clear in the Command register of a bridge between the function
            /// and the host, so that the bridge does not forward messages.
            412 BridgeDisabled {
                /// The bridge's address.
                bridge: RequesterId,
            } "Bus Master Enable is 0 in the Command register of the bridge {bridge}"
                => "set Bus Master Enable of the bridge, which forwards no requests without it";
            /// Memory Space Enable is clear in the function's Command register, so that its MSI-X
            /// table cannot be accessed.
            413 MemoryDisabled "Memory Space Enable is 0 in the function's Command register"
                => "set Memory Space Enable before accessing the MSI-X table";
            /// The function is in a power state other than D0.
            414 PoweredDown {
                /// The state: 1 to 3 for D1 to D3hot.
                state: u8,
            } "the function is in power state D{state}"
                => "return the function to D0 and restore its messages";
            /// The IOMMU has no writable mapping of the address in the device's message.
            415 NotMapped {
                /// The address in the device's message.
                iova: u64,
            } "the IOMMU has no writable mapping of {iova:#x}"
                => "map the doorbell's page in the device's IOMMU domain";
        }
        Doorbell {
            /// Bits that let the messages of a host bridge interrupt are clear.
            416 GateClosed {
                /// The bits.
                gate: MsiGate,
            } "{gate} is clear, so the host bridge raises no interrupt for messages"
                => "set it again; a kernel must not clear MSI Enable of such a root port";
            /// A register of the controller does not have what its driver wrote.
            444 Overwritten {
                /// The register's name.
                register: &'static str,
                /// The bits that the interrupt needs, as they are.
                found: u32,
                /// The same bits, as the driver wrote them.
                wanted: u32,
            } "{register} has {found:#x} where its driver wrote {wanted:#x}"
                => "find out what wrote the register; if the controller lost its power, resume its \
                 driver";
            /// No controller receives messages at the address.
            417 NoDoorbell {
                /// The address in the message.
                address: u64,
                /// The address of an existing doorbell, if any.
                doorbell: Option<u64>,
            } "no controller receives messages at {address:#x}{}" (other(doorbell))
                => "store the address of a doorbell in the message";
            /// The GSI has no route.
            418 NoRoute {
                /// The input.
                gsi: Gsi,
            } "GSI {gsi} has no route"
                => "set a route for the GSI before it is signaled";
            /// The machine has no ITS with this index.
            419 NoIts {
                /// The index.
                index: u32,
                /// Number of ITSes.
                count: u32,
            } "ITS {index} does not exist; the machine has {count}"
                => "use the index of an existing ITS";
            /// The doorbell belongs to an ITS, but the message has no DeviceID.
            420 NoIdentity {
                /// The address in the message.
                address: u64,
            } "the doorbell at {address:#x} belongs to an ITS, but the message has no DeviceID"
                => "send the message with the device's DeviceID";
        }
        Translation {
            /// A write to the base register of a table or queue was ignored, because the memory was
            /// in use.
            421 WriteIgnored {
                /// The register.
                register: TableRegister,
                /// Its value.
                value: u64,
                /// The ignored value.
                ignored: u64,
            }
                "{register} is {value:#x}: the write of {ignored:#x} was ignored, because {} was \
                 1" (register.guard())
                => "write the register before the enable bit is set";
            /// `GITS_CTLR.Enabled` is 0.
            422 ItsDisabled {
                /// Address of the ITS.
                its: u64,
            } "GITS_CTLR.Enabled is 0 at {its:#x}"
                => "program GITS_BASER<n> and GITS_CBASER, then set GITS_CTLR.Enabled";
            /// The ITS has not executed all commands of its queue.
            423 CommandsQueued {
                /// Low word of `GITS_CREADR`: the byte offset, and in bit 0 the Stalled bit.
                read: u32,
                /// Low word of `GITS_CWRITER`: the byte offset.
                write: u32,
            }
                "the ITS has not executed the commands between GITS_CREADR = {read:#x} and \
                 GITS_CWRITER = {write:#x}"
                => "wait until GITS_CREADR equals GITS_CWRITER; a stalled queue needs \
                 GITS_CWRITER.Retry";
            /// `GITS_BASER<n>.Valid` is 0, so that the ITS has no table for the identifier.
            424 InvalidTable {
                /// The register.
                register: TableRegister,
                /// Its value.
                value: u64,
            } "{register} is {value:#x}, so its Valid bit is 0"
                => "write the address of a table with Valid = 1 before GITS_CTLR.Enabled is set";
            /// The device table has two levels, and the first-level entry for the DeviceID is
            /// invalid.
            425 NoSecondLevel {
                /// Sender of the message.
                device: DeviceId,
            } "the first-level entry for DeviceID {device} in the table of GITS_BASER0 is invalid"
                => "write a valid first-level entry, visible to the ITS, before MAPD";
            /// The DeviceID is beyond the end of the ITS's device table.
            426 DeviceOutOfRange {
                /// Sender of the message.
                device: DeviceId,
                /// Number of DeviceID bits that the table covers.
                bits: u8,
            } "DeviceID {device} exceeds the {bits} bits of the ITS's device table"
                => "enlarge the device table in GITS_BASER<n>, or correct the DeviceID in firmware";
            /// The ITS has no mapping of the DeviceID.
            427 UnmappedDevice {
                /// Sender of the message.
                device: DeviceId,
                /// Number of DeviceIDs that are mapped.
                mapped: u32,
            } "the ITS has no mapping of DeviceID {device}; {}" (other_devices(mapped))
                => "map the DeviceID with MAPD, or correct the DeviceID that firmware gives the \
                 device";
            /// The EventID is beyond the end of the device's interrupt translation table.
            428 EventOutOfRange {
                /// Sender of the message.
                device: DeviceId,
                /// Data of the message.
                event: EventId,
                /// Number of EventID bits with which MAPD mapped the device.
                bits: u8,
            } "EventID {event} exceeds the {bits} EventID bits of DeviceID {device}"
                => "map the device with a larger interrupt translation table";
            /// The ITS has no mapping of the device's EventID.
            429 UnmappedEvent {
                /// Sender of the message.
                device: DeviceId,
                /// Data of the message.
                event: EventId,
            } "EventID {event} of DeviceID {device} has no mapping"
                => "map the event with MAPTI or MAPI after MAPD";
            /// The event's collection is not mapped to a redistributor.
            430 UnmappedCollection {
                /// The collection's number (ICID).
                collection: u16,
            } "collection {collection} is not mapped to a redistributor"
                => "map the collection to a redistributor with MAPC";
            /// The controller does not implement the INTID, or its driver has not allocated it.
            431 NoSuchInterrupt {
                /// The INTID.
                interrupt: HwIrq,
            } "INTID {interrupt} does not exist"
                => "use an INTID that the controller implements";
            /// The message names an INTID that its doorbell does not make pending.
            443 NotOfDoorbell {
                /// The INTID.
                interrupt: HwIrq,
                /// The first INTID of the doorbell.
                first: HwIrq,
                /// The last INTID of the doorbell.
                last: HwIrq,
            } "INTID {interrupt} is not one of this doorbell's {first} to {last}"
                => "store the data of a vector of this doorbell, or correct the range that \
                 firmware states";
            /// No event is mapped to the LPI.
            432 NoEvent {
                /// The INTID.
                interrupt: HwIrq,
            } "no event is mapped to INTID {interrupt}"
                => "map an event to the LPI with MAPTI or MAPI";
            /// The driver mapped a DeviceID other than the one that the device's messages carry.
            433 WrongDevice {
                /// The DeviceID that the driver mapped.
                expected: DeviceId,
                /// The DeviceID that the device's requester ID translates to.
                actual: DeviceId,
            } "the driver mapped DeviceID {expected}, but the device sends DeviceID {actual}"
                => "attach the function with the requester ID under which the host bridge receives \
                 its messages";
            /// The register does not name the table that its driver provided. Other software has
            /// written the register, or a restore has written a wrong value.
            434 OtherTable {
                /// The register.
                register: TableRegister,
                /// Address in the register.
                found: u64,
                /// Address of the driver's table.
                expected: u64,
            } "{register} names a table at {found:#x}, but its driver's table is at {expected:#x}"
                => "find out what wrote the register; a VMM must restore each CPU's own value";
        }
        Configuration {
            /// The source of the interrupt sends edges, which a level-sensitive interrupt does not keep.
            435 LevelSensitive {
                /// The INTID.
                interrupt: HwIrq,
            } "INTID {interrupt} is level-sensitive, but its source sends edges"
                => "make the interrupt edge-triggered in GICD_ICFGR<n>";
            /// The interrupt was requested as level-sensitive, and its controller now waits for edges.
            463 EdgeTriggered {
                /// The INTID.
                interrupt: HwIrq,
            } "INTID {interrupt} is edge-triggered, but was requested as level-sensitive"
                => "make the interrupt level-sensitive in GICD_ICFGR<n>, and find out what changed it";
            /// `GICR_CTLR.EnableLPIs` is 0 at the target.
            436 LpisDisabled {
                /// The target.
                cpu: Cpu,
            } "GICR_CTLR.EnableLPIs is 0 at CPU {cpu}"
                => "program GICR_PROPBASER and GICR_PENDBASER, then set GICR_CTLR.EnableLPIs";
            /// LPIs are enabled, but `GICR_PROPBASER` does not point to a table in memory. Either
            /// the register was not written before `EnableLPIs` was set, or no memory exists at its
            /// address.
            437 NoConfigurationTable {
                /// The target.
                cpu: Cpu,
                /// `GICR_PROPBASER`.
                propbaser: u64,
            } "GICR_PROPBASER of CPU {cpu} is {propbaser:#x}, which points to no table in memory"
                => "point GICR_PROPBASER to a table in memory before setting GICR_CTLR.EnableLPIs";
            /// LPIs are enabled, but `GICR_PENDBASER` does not point to a table in memory.
            438 NoPendingTable {
                /// The target.
                cpu: Cpu,
                /// `GICR_PENDBASER`.
                pendbaser: u64,
            } "GICR_PENDBASER of CPU {cpu} is {pendbaser:#x}, which points to no table in memory"
                => "point GICR_PENDBASER to a table in memory before setting GICR_CTLR.EnableLPIs";
            /// The LPI is beyond the end of the target's configuration table.
            439 BeyondTable {
                /// The INTID.
                interrupt: HwIrq,
                /// `GICR_PROPBASER.IDbits` + 1.
                bits: u8,
            } "INTID {interrupt} exceeds the {bits} bits that GICR_PROPBASER.IDbits specifies"
                => "enlarge GICR_PROPBASER.IDbits and the tables, or map a smaller INTID";
            /// The configuration byte in memory differs from the one that the redistributor uses.
            440 StaleConfiguration {
                /// The INTID.
                interrupt: HwIrq,
                /// The byte in memory: priority in bits 7:2, enable in bit 0.
                memory: u8,
                /// The byte that the redistributor uses.
                cached: u8,
            }
                "the configuration byte of INTID {interrupt} is {memory:#04x} in memory, but the \
                 redistributor uses {cached:#04x}"
                => "invalidate with INV, INVALL or GICR_INVLPIR after each change of the byte";
            /// The interrupt's enable bit is 0.
            441 Disabled {
                /// The INTID.
                interrupt: HwIrq,
            } "INTID {interrupt} is disabled"
                => "set the enable bit in GICD_ISENABLER<n> or GICR_ISENABLER0; for an LPI, set \
                 bit 0 of its configuration byte";
            /// The interrupt belongs to a group that the kernel does not handle.
            442 WrongGroup {
                /// The INTID.
                interrupt: HwIrq,
                /// The interrupt's group.
                group: Group,
            } "INTID {interrupt} is in Group {group}, which the kernel does not handle"
                => "assign the interrupt to the kernel's group in GICD_IGROUPR<n> or GICR_IGROUPR0";
        }
        Pending {
            /// The interrupt is not pending although its line is high, because it is
            /// edge-triggered.
            445 NoEdge {
                /// The INTID.
                interrupt: HwIrq,
            } "INTID {interrupt} is edge-triggered, and its line stays high without a new edge"
                => "make the interrupt level-sensitive, in GICD_ICFGR<n> and in firmware, or make \
                 the handler lower the line";
            /// The interrupt is not pending, and the target's pending table overlaps that of
            /// another CPU. Each redistributor may have overwritten the other's pending bits.
            446 SharedPendingTable {
                /// The target.
                cpu: Cpu,
                /// `GICR_PENDBASER` of the target.
                pendbaser: u64,
                /// The other CPU.
                other: Cpu,
            }
                "GICR_PENDBASER of CPU {cpu} is {pendbaser:#x}, and its table overlaps that of CPU \
                 {other}"
                => "give each redistributor its own pending table; a VMM must restore each CPU's \
                 own GICR_PENDBASER";
            /// The interrupt is active: it was acknowledged, and has not been deactivated.
            447 Active {
                /// The INTID.
                interrupt: HwIrq,
                /// The CPU at which the interrupt is active, if known.
                cpu: Option<Cpu>,
            } "INTID {interrupt} is active{} and has not been deactivated" (by(cpu))
                => "write the INTID to ICC_EOIR1_EL1, and also to ICC_DIR_EL1 if \
                 ICC_CTLR_EL1.EOImode is 1";
        }
        Target {
            /// The SPI's route selects no existing CPU.
            448 NoTarget {
                /// The affinity in `GICD_IROUTER<n>`, or the CPU targets in `GICD_ITARGETSR<n>`.
                affinity: u64,
            } "the SPI is routed to {affinity:#x}, which selects no CPU"
                => "route the SPI to an existing CPU in GICD_IROUTER<n> (GICv2: GICD_ITARGETSR<n>)";
            /// The interrupt is routed to another CPU.
            449 OtherTarget {
                /// The INTID.
                interrupt: HwIrq,
                /// The CPU for which the interrupt was explained.
                cpu: Cpu,
                /// The target.
                target: Cpu,
            } "INTID {interrupt} is routed to CPU {target}, not to CPU {cpu}"
                => "explain the interrupt at the target CPU, or move it to this CPU";
            /// `GICR_WAKER.ProcessorSleep` is 1 at the target.
            450 Asleep {
                /// The target.
                cpu: Cpu,
            } "GICR_WAKER.ProcessorSleep is 1 at CPU {cpu}"
                => "clear GICR_WAKER.ProcessorSleep and wait for ChildrenAsleep = 0";
            /// The target CPU is offline: the kernel has not brought it up, or has taken it down.
            451 Offline {
                /// The target.
                cpu: Cpu,
            } "CPU {cpu} is offline"
                => "bring the CPU online (`cpu_on`), or move the interrupt to an online CPU";
        }
        Interface {
            /// The distributor does not forward the interrupt's group.
            452 GroupDisabled {
                /// The group.
                group: Group,
                /// `GICD_CTLR`.
                ctlr: u32,
            } "GICD_CTLR is {ctlr:#x}: the distributor does not forward Group {group}"
                => "enable the group in GICD_CTLR";
            /// The target's CPU interface does not signal the interrupt's group.
            453 InterfaceGroupDisabled {
                /// The group.
                group: Group,
                /// The target.
                cpu: Cpu,
            } "ICC_IGRPEN{group}_EL1 is 0 at CPU {cpu}"
                => "enable the group at the CPU interface";
            /// The priority is not higher than the priority mask.
            454 PriorityMasked {
                /// The interrupt's priority.
                priority: u8,
                /// `ICC_PMR_EL1`.
                mask: u8,
                /// The target.
                cpu: Cpu,
            } "priority {priority:#x} is not higher than ICC_PMR_EL1 = {mask:#x} at CPU {cpu}"
                => "raise ICC_PMR_EL1, or lower the priority value of the interrupt";
            /// The priority is not higher than that of an active interrupt.
            455 PriorityNotHigher {
                /// The interrupt's priority.
                priority: u8,
                /// `ICC_RPR_EL1`.
                running: u8,
                /// The target.
                cpu: Cpu,
            }
                "priority {priority:#x} is not higher than the running priority {running:#x} at \
                 CPU {cpu}"
                => "end the active interrupt with ICC_EOIR1_EL1";
            /// The interrupt is in a list register, whose state the model cannot read until the
            /// vCPU exits.
            456 Listed {
                /// The INTID.
                interrupt: HwIrq,
                /// The target.
                cpu: Cpu,
            }
                "INTID {interrupt} is in a list register of CPU {cpu}, whose state is not known \
                 until the CPU exits the guest"
                => "check that the guest enables its groups, unmasks exceptions and reads \
                 ICC_IAR1_EL1";
            /// The CPU masks interrupt exceptions (`PSTATE.I`).
            457 ExceptionsMasked {
                /// The target.
                cpu: Cpu,
            } "PSTATE.I is 1 at CPU {cpu}"
                => "clear PSTATE.I (DAIF)";
        }
        Dispatch {
            /// The kernel has no descriptor for the interrupt.
            458 NoDescriptor {
                /// The INTID.
                interrupt: HwIrq,
            } "the kernel has no descriptor for INTID {interrupt}"
                => "request the interrupt, or handle it as spurious";
        }
        Handler {
            /// No handler has been requested.
            459 NotRequested "no handler has been requested"
                => "request a handler";
            /// The driver has disabled the interrupt.
            460 DisabledByDriver "the driver has disabled the interrupt"
                => "enable the interrupt through its handle";
            /// The core has disabled the interrupt because its handler found nothing to do in
            /// nearly every run. Linux logs "nobody cared" in this case.
            461 DisabledAsSpurious
                "the core has disabled the interrupt, because its handler nearly always found \
                 nothing to do"
                => "make the handler silence its device, then enable the interrupt through its \
                 handle";
            /// All CPUs of a managed interrupt are offline.
            462 ShutDown "all CPUs of the managed interrupt are offline"
                => "bring a CPU of its affinity set online";
        }
    }
}

impl core::error::Error for Obstacle {}

impl Obstacle {
    /// Returns the stage that the interrupt does not pass.
    pub const fn stage(self) -> Stage {
        match self {
            Self::Setup(fault) => fault.stage(),
            Self::WriteIgnored { register, .. } | Self::OtherTable { register, .. } => {
                register.stage()
            }
            _ => self.stated_stage(),
        }
    }

    /// Returns the stable code.
    pub const fn code(self) -> Code {
        match self {
            Self::Setup(fault) => fault.code(),
            _ => self.stated_code(),
        }
    }

    /// Returns advice that removes the obstacle.
    pub(super) const fn fix(self) -> &'static str {
        match self {
            Self::Setup(fault) => fault.stated_fix(),
            Self::MessageDiffers { stored, expected } => Lost::of(stored, expected).fix(),
            _ => self.stated_fix(),
        }
    }
}
