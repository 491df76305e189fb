//! Reasons why an interrupt does not pass a stage.

use super::words::{By, Lost, Other, OtherDevices};
use super::{SetupFault, Stage, TableRegister};
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

/// A reason why an interrupt does not pass a stage. The fields hold the values of registers, tables
/// or objects at the time of the observation. Register names are those of a GICv3; a GICv2 has the
/// equivalent fields in `GICC_CTLR`, `GICC_PMR`, `GICC_RPR` and `GICD_ITARGETSR<n>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Obstacle {
    // Endpoint.
    /// The vector does not exist.
    #[error("vector {vector} does not exist; the device has {vectors}")]
    NoVector {
        /// The vector.
        vector: u16,
        /// Number of vectors of the device.
        vectors: u16,
    },
    /// The function's registers read as all ones, because it was removed or has no power.
    #[error("the function does not respond: its registers read as all ones")]
    Absent,
    /// MSI or MSI-X is disabled in the function's Message Control.
    #[error("MSI or MSI-X is disabled in the function's Message Control")]
    MessagesDisabled,
    /// MSI and MSI-X are both enabled, which PCI leaves undefined.
    #[error("MSI and MSI-X are both enabled in the function's Message Control registers")]
    BothEnabled,
    /// The function mask of Message Control is set.
    #[error("the function mask in Message Control is set")]
    FunctionMasked,
    /// The vector is masked in the table or capability.
    #[error(
        "vector {vector} is masked{}",
        if *pending { ", and its pending bit is set" } else { "" }
    )]
    VectorMasked {
        /// The vector.
        vector: u16,
        /// The vector's pending bit is set, so the device will send its message when the vector is
        /// unmasked.
        pending: bool,
    },
    /// The driver has not stored a message: the address is 0.
    #[error("the vector holds no message")]
    NoMessage,
    /// The endpoint holds a message that differs from the one that its driver stored.
    #[error(
        "sends {:#x} to {:#x}, but its driver stored {:#x} for {:#x}{}",
        stored.data, stored.address, expected.data, expected.address, Lost::of(*stored, *expected)
    )]
    MessageDiffers {
        /// The message that the endpoint holds.
        stored: MsiMessage,
        /// The message that the driver stored.
        expected: MsiMessage,
    },
    /// The line of a level-sensitive interrupt is low.
    #[error("the line is low, and the input is level-sensitive")]
    LineLow,
    // Bus.
    /// Bus Master Enable is clear in the function's Command register.
    #[error("Bus Master Enable is 0 in the function's Command register")]
    BusMasterDisabled,
    /// Bus Master Enable is clear in the Command register of a bridge between the function and the
    /// host, so that the bridge does not forward messages.
    #[error("Bus Master Enable is 0 in the Command register of the bridge {bridge}")]
    BridgeDisabled {
        /// The bridge's address.
        bridge: RequesterId,
    },
    /// Memory Space Enable is clear in the function's Command register, so that its MSI-X table
    /// cannot be accessed.
    #[error("Memory Space Enable is 0 in the function's Command register")]
    MemoryDisabled,
    /// The function is in a power state other than D0.
    #[error("the function is in power state D{state}")]
    PoweredDown {
        /// The state: 1 to 3 for D1 to D3hot.
        state: u8,
    },
    /// The IOMMU has no writable mapping of the address in the device's message.
    #[error("the IOMMU has no writable mapping of {iova:#x}")]
    NotMapped {
        /// The address in the device's message.
        iova: u64,
    },
    // Doorbell.
    /// No controller receives messages at the address.
    #[error("no controller receives messages at {address:#x}{}", Other(*doorbell))]
    NoDoorbell {
        /// The address in the message.
        address: u64,
        /// The address of an existing doorbell, if any.
        doorbell: Option<u64>,
    },
    /// The GSI has no route.
    #[error("GSI {gsi} has no route")]
    NoRoute {
        /// The input.
        gsi: Gsi,
    },
    /// The machine has no ITS with this index.
    #[error("ITS {index} does not exist; the machine has {count}")]
    NoIts {
        /// The index.
        index: u32,
        /// Number of ITSes.
        count: u32,
    },
    /// The doorbell belongs to an ITS, but the message has no DeviceID.
    #[error("the doorbell at {address:#x} belongs to an ITS, but the message has no DeviceID")]
    NoIdentity {
        /// The address in the message.
        address: u64,
    },
    // Translation.
    /// A write to the base register of a table or queue was ignored, because the memory was in use.
    #[error(
        "{register} is {value:#x}: the write of {ignored:#x} was ignored, because {} was 1",
        register.guard()
    )]
    WriteIgnored {
        /// The register.
        register: TableRegister,
        /// Its value.
        value: u64,
        /// The ignored value.
        ignored: u64,
    },
    /// `GITS_CTLR.Enabled` is 0.
    #[error("GITS_CTLR.Enabled is 0 at {its:#x}")]
    ItsDisabled {
        /// Address of the ITS.
        its: u64,
    },
    /// The ITS has not executed all commands of its queue.
    #[error(
        "the ITS has not executed the commands between GITS_CREADR = {read:#x} and GITS_CWRITER \
         = {write:#x}"
    )]
    CommandsQueued {
        /// Low word of `GITS_CREADR`: the byte offset, and in bit 0 the Stalled bit.
        read: u32,
        /// Low word of `GITS_CWRITER`: the byte offset.
        write: u32,
    },
    /// `GITS_BASER<n>.Valid` is 0, so that the ITS has no table for the identifier.
    #[error("{register} is {value:#x}, so its Valid bit is 0")]
    InvalidTable {
        /// The register.
        register: TableRegister,
        /// Its value.
        value: u64,
    },
    /// The device table has two levels, and the first-level entry for the DeviceID is invalid.
    #[error("the first-level entry for DeviceID {device} in the table of GITS_BASER0 is invalid")]
    NoSecondLevel {
        /// Sender of the message.
        device: DeviceId,
    },
    /// The DeviceID is beyond the end of the ITS's device table.
    #[error("DeviceID {device} exceeds the {bits} bits of the ITS's device table")]
    DeviceOutOfRange {
        /// Sender of the message.
        device: DeviceId,
        /// Number of DeviceID bits that the table covers.
        bits: u8,
    },
    /// The ITS has no mapping of the DeviceID.
    #[error("the ITS has no mapping of DeviceID {device}; {}", OtherDevices(*mapped))]
    UnmappedDevice {
        /// Sender of the message.
        device: DeviceId,
        /// Number of DeviceIDs that are mapped.
        mapped: u32,
    },
    /// The EventID is beyond the end of the device's interrupt translation table.
    #[error("EventID {event} exceeds the {bits} EventID bits of DeviceID {device}")]
    EventOutOfRange {
        /// Sender of the message.
        device: DeviceId,
        /// Data of the message.
        event: EventId,
        /// Number of EventID bits with which MAPD mapped the device.
        bits: u8,
    },
    /// The ITS has no mapping of the device's EventID.
    #[error("EventID {event} of DeviceID {device} has no mapping")]
    UnmappedEvent {
        /// Sender of the message.
        device: DeviceId,
        /// Data of the message.
        event: EventId,
    },
    /// The event's collection is not mapped to a redistributor.
    #[error("collection {collection} is not mapped to a redistributor")]
    UnmappedCollection {
        /// The collection's number (ICID).
        collection: u16,
    },
    /// The controller does not implement the INTID, or its driver has not allocated it.
    #[error("INTID {interrupt} does not exist")]
    NoSuchInterrupt {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// The message is an edge, which a level-sensitive interrupt ignores.
    #[error("INTID {interrupt} is level-sensitive, but a message is an edge")]
    LevelSensitive {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// No event is mapped to the LPI.
    #[error("no event is mapped to INTID {interrupt}")]
    NoEvent {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// The driver mapped a DeviceID other than the one that the device's messages carry.
    #[error("the driver mapped DeviceID {expected}, but the device sends DeviceID {actual}")]
    WrongDevice {
        /// The DeviceID that the driver mapped.
        expected: DeviceId,
        /// The DeviceID that the device's requester ID translates to.
        actual: DeviceId,
    },
    // Configuration.
    /// `GICR_CTLR.EnableLPIs` is 0 at the target.
    #[error("GICR_CTLR.EnableLPIs is 0 at CPU {cpu}")]
    LpisDisabled {
        /// The target.
        cpu: Cpu,
    },
    /// LPIs are enabled, but `GICR_PROPBASER` does not point to a table in memory. Either the
    /// register was not written before `EnableLPIs` was set, or no memory exists at its address.
    #[error("GICR_PROPBASER of CPU {cpu} is {propbaser:#x}, which points to no table in memory")]
    NoConfigurationTable {
        /// The target.
        cpu: Cpu,
        /// `GICR_PROPBASER`.
        propbaser: u64,
    },
    /// LPIs are enabled, but `GICR_PENDBASER` does not point to a table in memory.
    #[error("GICR_PENDBASER of CPU {cpu} is {pendbaser:#x}, which points to no table in memory")]
    NoPendingTable {
        /// The target.
        cpu: Cpu,
        /// `GICR_PENDBASER`.
        pendbaser: u64,
    },
    /// The register does not name the table that its driver provided. Other software has written
    /// the register, or a restore has written a wrong value.
    #[error("{register} names a table at {found:#x}, but its driver's table is at {expected:#x}")]
    OtherTable {
        /// The register.
        register: TableRegister,
        /// Address in the register.
        found: u64,
        /// Address of the driver's table.
        expected: u64,
    },
    /// The LPI is beyond the end of the target's configuration table.
    #[error("INTID {interrupt} exceeds the {bits} bits that GICR_PROPBASER.IDbits specifies")]
    BeyondTable {
        /// The INTID.
        interrupt: HwIrq,
        /// `GICR_PROPBASER.IDbits` + 1.
        bits: u8,
    },
    /// The configuration byte in memory differs from the one that the redistributor uses.
    #[error(
        "the configuration byte of INTID {interrupt} is {memory:#04x} in memory, but the \
         redistributor uses {cached:#04x}"
    )]
    StaleConfiguration {
        /// The INTID.
        interrupt: HwIrq,
        /// The byte in memory: priority in bits 7:2, enable in bit 0.
        memory: u8,
        /// The byte that the redistributor uses.
        cached: u8,
    },
    /// The interrupt's enable bit is 0.
    #[error("INTID {interrupt} is disabled")]
    Disabled {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// The interrupt belongs to a group that the kernel does not handle.
    #[error("INTID {interrupt} is in Group {group}, which the kernel does not handle")]
    WrongGroup {
        /// The INTID.
        interrupt: HwIrq,
        /// The interrupt's group.
        group: Group,
    },
    // Pending.
    /// The interrupt is not pending: no message or edge has arrived since it was last acknowledged,
    /// or its pending state was cleared.
    #[error("INTID {interrupt} is not pending")]
    NotPending {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// Hardware delivers the interrupt's messages to the guest directly (GICv4), so the model
    /// doesn't know whether it is pending.
    #[error("hardware delivers INTID {interrupt} directly, so its pending state is unknown")]
    PendingUnknown {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// The interrupt is not pending although its line is high, because it is edge-triggered.
    #[error("INTID {interrupt} is edge-triggered, and its line stays high without a new edge")]
    NoEdge {
        /// The INTID.
        interrupt: HwIrq,
    },
    /// The interrupt is not pending, and the target's pending table overlaps that of another CPU.
    /// Each redistributor may have overwritten the other's pending bits.
    #[error(
        "GICR_PENDBASER of CPU {cpu} is {pendbaser:#x}, and its table overlaps that of CPU {other}"
    )]
    SharedPendingTable {
        /// The target.
        cpu: Cpu,
        /// `GICR_PENDBASER` of the target.
        pendbaser: u64,
        /// The other CPU.
        other: Cpu,
    },
    /// The interrupt is active: it was acknowledged, and has not been deactivated.
    #[error("INTID {interrupt} is active{} and has not been deactivated", By(*cpu))]
    Active {
        /// The INTID.
        interrupt: HwIrq,
        /// The CPU at which the interrupt is active, if known.
        cpu: Option<Cpu>,
    },
    // Target.
    /// The SPI's route selects no existing CPU.
    #[error("the SPI is routed to {affinity:#x}, which selects no CPU")]
    NoTarget {
        /// The affinity in `GICD_IROUTER<n>`, or the CPU targets in `GICD_ITARGETSR<n>`.
        affinity: u64,
    },
    /// The interrupt is routed to another CPU.
    #[error("INTID {interrupt} is routed to CPU {target}, not to CPU {cpu}")]
    OtherTarget {
        /// The INTID.
        interrupt: HwIrq,
        /// The CPU for which the interrupt was explained.
        cpu: Cpu,
        /// The target.
        target: Cpu,
    },
    /// `GICR_WAKER.ProcessorSleep` is 1 at the target.
    #[error("GICR_WAKER.ProcessorSleep is 1 at CPU {cpu}")]
    Asleep {
        /// The target.
        cpu: Cpu,
    },
    /// The target CPU is offline: the kernel has not brought it up, or has taken it down.
    #[error("CPU {cpu} is offline")]
    Offline {
        /// The target.
        cpu: Cpu,
    },
    // Interface.
    /// The distributor does not forward the interrupt's group.
    #[error("GICD_CTLR is {ctlr:#x}: the distributor does not forward Group {group}")]
    GroupDisabled {
        /// The group.
        group: Group,
        /// `GICD_CTLR`.
        ctlr: u32,
    },
    /// The target's CPU interface does not signal the interrupt's group.
    #[error("ICC_IGRPEN{group}_EL1 is 0 at CPU {cpu}")]
    InterfaceGroupDisabled {
        /// The group.
        group: Group,
        /// The target.
        cpu: Cpu,
    },
    /// The priority is not higher than the priority mask.
    #[error("priority {priority:#x} is not higher than ICC_PMR_EL1 = {mask:#x} at CPU {cpu}")]
    PriorityMasked {
        /// The interrupt's priority.
        priority: u8,
        /// `ICC_PMR_EL1`.
        mask: u8,
        /// The target.
        cpu: Cpu,
    },
    /// The priority is not higher than that of an active interrupt.
    #[error(
        "priority {priority:#x} is not higher than the running priority {running:#x} at CPU {cpu}"
    )]
    PriorityNotHigher {
        /// The interrupt's priority.
        priority: u8,
        /// `ICC_RPR_EL1`.
        running: u8,
        /// The target.
        cpu: Cpu,
    },
    /// The interrupt is in a list register, whose state the model cannot read until the vCPU exits.
    #[error(
        "INTID {interrupt} is in a list register of CPU {cpu}, whose state is not known until \
         the CPU exits the guest"
    )]
    Listed {
        /// The INTID.
        interrupt: HwIrq,
        /// The target.
        cpu: Cpu,
    },
    /// The CPU masks interrupt exceptions (`PSTATE.I`).
    #[error("PSTATE.I is 1 at CPU {cpu}")]
    ExceptionsMasked {
        /// The target.
        cpu: Cpu,
    },
    // Dispatch.
    /// The kernel has no descriptor for the interrupt.
    #[error("the kernel has no descriptor for INTID {interrupt}")]
    NoDescriptor {
        /// The INTID.
        interrupt: HwIrq,
    },
    // Handler.
    /// No handler has been requested.
    #[error("no handler has been requested")]
    NotRequested,
    /// The driver has disabled the interrupt.
    #[error("the driver has disabled the interrupt")]
    DisabledByDriver,
    /// The core has disabled the interrupt because its handler found nothing to do in nearly every
    /// run. Linux logs "nobody cared" in this case.
    #[error(
        "the core has disabled the interrupt, because its handler nearly always found nothing to do"
    )]
    DisabledAsSpurious,
    /// All CPUs of a managed interrupt are offline.
    #[error("all CPUs of the managed interrupt are offline")]
    ShutDown,
    // Any stage.
    /// An operating system has not set up the interrupt, or has set it up in a way that contradicts
    /// firmware's description.
    #[error("{0}")]
    Setup(SetupFault),
}

impl Obstacle {
    /// Returns the stage that the interrupt does not pass.
    pub const fn stage(self) -> Stage {
        match self {
            Self::Setup(fault) => fault.stage(),
            Self::NoVector { .. }
            | Self::Absent
            | Self::MessagesDisabled
            | Self::BothEnabled
            | Self::FunctionMasked
            | Self::VectorMasked { .. }
            | Self::NoMessage
            | Self::MessageDiffers { .. }
            | Self::LineLow => Stage::Endpoint,
            Self::BusMasterDisabled
            | Self::BridgeDisabled { .. }
            | Self::MemoryDisabled
            | Self::PoweredDown { .. }
            | Self::NotMapped { .. } => Stage::Bus,
            Self::NoDoorbell { .. }
            | Self::NoRoute { .. }
            | Self::NoIts { .. }
            | Self::NoIdentity { .. } => Stage::Doorbell,
            Self::WriteIgnored { register, .. } | Self::OtherTable { register, .. } => {
                register.stage()
            }
            Self::ItsDisabled { .. }
            | Self::CommandsQueued { .. }
            | Self::InvalidTable { .. }
            | Self::NoSecondLevel { .. }
            | Self::DeviceOutOfRange { .. }
            | Self::UnmappedDevice { .. }
            | Self::EventOutOfRange { .. }
            | Self::UnmappedEvent { .. }
            | Self::UnmappedCollection { .. }
            | Self::NoSuchInterrupt { .. }
            | Self::NoEvent { .. }
            | Self::WrongDevice { .. } => Stage::Translation,
            Self::LpisDisabled { .. }
            | Self::NoConfigurationTable { .. }
            | Self::NoPendingTable { .. }
            | Self::BeyondTable { .. }
            | Self::StaleConfiguration { .. }
            | Self::LevelSensitive { .. }
            | Self::Disabled { .. }
            | Self::WrongGroup { .. } => Stage::Configuration,
            Self::NotPending { .. }
            | Self::PendingUnknown { .. }
            | Self::NoEdge { .. }
            | Self::SharedPendingTable { .. }
            | Self::Active { .. } => Stage::Pending,
            Self::NoTarget { .. }
            | Self::OtherTarget { .. }
            | Self::Asleep { .. }
            | Self::Offline { .. } => Stage::Target,
            Self::GroupDisabled { .. }
            | Self::InterfaceGroupDisabled { .. }
            | Self::PriorityMasked { .. }
            | Self::PriorityNotHigher { .. }
            | Self::Listed { .. }
            | Self::ExceptionsMasked { .. } => Stage::Interface,
            Self::NoDescriptor { .. } => Stage::Dispatch,
            Self::NotRequested
            | Self::DisabledByDriver
            | Self::DisabledAsSpurious
            | Self::ShutDown => Stage::Handler,
        }
    }
}
