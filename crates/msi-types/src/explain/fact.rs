//! Observations at the stages of an interrupt's path.

use super::words::{Operand, Sharing};
use super::{Obstacle, Stage, TableRegister};
use crate::{Cpu, DeviceId, EventId, Gsi, HwIrq, Level, MsiMessage};
use core::fmt;

/// The state of the CPU that an interrupt is routed to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum TargetState {
    /// The CPU is awake and checks for interrupts without being kicked.
    Awake,
    /// The CPU is executing guest code or waiting in WFI, and must be kicked.
    NeedsKick,
    /// The CPU was kicked, but has not yet returned from the guest or from WFI.
    Kicked,
}

/// An observation at a stage of an interrupt's path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Fact {
    /// The endpoint holds this message, and the vector is not masked.
    Message(MsiMessage),
    /// The device's line has this level.
    Line(Level),
    /// A pulse on the interrupt's line was lost, because the input is level-sensitive.
    PulseLost(HwIrq),
    /// Another vector of the function is masked and has its pending bit set.
    OtherVectorPending(u16),
    /// The data that a driver stored for MSI has bits that the function replaces with the number of
    /// the vector.
    DataReplaced {
        /// The stored data.
        data: u16,
        /// Number of vectors that Message Control grants.
        granted: u16,
    },
    /// The device may write to the bus.
    BusMaster,
    /// The IOMMU maps the address in the device's message to the doorbell.
    Mapped {
        /// The address in the device's message.
        iova: u64,
        /// The doorbell's physical address.
        doorbell: u64,
    },
    /// A controller receives messages at this address.
    Doorbell(u64),
    /// The interrupt is signaled by the controller's own input, without a message.
    Input(HwIrq),
    /// An ITS translates the message to this interrupt.
    Event {
        /// Sender of the message.
        device: DeviceId,
        /// Data of the message.
        event: EventId,
        /// INTID of the LPI.
        interrupt: HwIrq,
    },
    /// The message contains this INTID, so it needs no translation.
    MessageIntid(HwIrq),
    /// The ITS refused commands, which may be why a mapping is missing.
    RefusedCommands {
        /// Number of refused commands.
        count: u64,
        /// Address of the first refused command.
        address: u64,
        /// Name of the first refused command.
        command: &'static str,
        /// Reason why the first command was refused.
        reason: &'static str,
        /// The operand that the reason is about, if the command is still in memory.
        operand: Option<u32>,
        /// Advice on the command, if its refusal may be the reason for the obstacle.
        fix: Option<&'static str>,
    },
    /// A command about the event is in memory at or after `GITS_CWRITER`, so the ITS does not
    /// execute it. It may also be an old command of a queue that has wrapped.
    Unannounced {
        /// Name of the command.
        command: &'static str,
        /// Address of the command.
        address: u64,
        /// Low word of `GITS_CWRITER`.
        write: u32,
        /// `true` if the command may be an old one, because the queue has wrapped, or may have
        /// before a restore.
        wrapped: bool,
    },
    /// The ITS has executed a command that removed the mapping.
    Removed {
        /// Name of the command.
        command: &'static str,
        /// Address of the command.
        address: u64,
    },
    /// The base register of a table or queue was written before `GITS_CTLR.Quiescent` was read as 1
    /// after the ITS had been disabled. Writes while the bit is 0 are UNPREDICTABLE.
    WrittenWhileBusy {
        /// The register.
        register: TableRegister,
        /// The value that was written.
        value: u64,
    },
    /// The device's interrupt translation table is not in memory. This may not stop a model, but
    /// stops hardware and saves of the table.
    TranslationTableMissing {
        /// Sender of the message.
        device: DeviceId,
        /// Address of the table.
        itt: u64,
        /// Size of the table in bytes.
        bytes: u64,
    },
    /// Other events are mapped to the same interrupt.
    SharedInterrupt {
        /// INTID of the LPI.
        interrupt: HwIrq,
        /// Another event that is mapped to the interrupt, if known.
        other: Option<(DeviceId, EventId)>,
        /// Number of other events that are mapped to the interrupt.
        events: u32,
    },
    /// The controller identifies the sender by this DeviceID. The EventID is unknown.
    Sender(DeviceId),
    /// A GSI is routed to this interrupt.
    Route {
        /// The GSI.
        gsi: Gsi,
        /// INTID of the interrupt.
        interrupt: HwIrq,
    },
    /// The interrupt is enabled and has this priority value. Lower values are higher priorities.
    Enabled(u8),
    /// The input is level-sensitive: the interrupt is pending only while its line is high.
    LevelSensitive,
    /// The byte that configures an LPI, in the table that its redistributor uses.
    ConfigurationByte {
        /// Address of the byte.
        address: u64,
        /// The byte: priority in bits 7:2, enable in bit 0.
        byte: u8,
    },
    /// The interrupt is pending.
    Pending(HwIrq),
    /// Another interrupt is pending, but no driver has claimed it.
    OtherPending(HwIrq),
    /// The interrupt is routed to a CPU that can take it.
    Target(Cpu, TargetState),
    /// The CPU interface would signal the interrupt if it were pending, and `PSTATE.I`, if known,
    /// does not mask it. The pending state is not known.
    WouldSignal(Cpu),
    /// The interrupt is routed to this CPU, whose state is unknown.
    Routed(Cpu),
    /// The CPU interface compares priorities without their low bits, which the binary point
    /// selects.
    GroupPriority {
        /// The interrupt's priority.
        priority: u8,
        /// The bits of the priority that are compared.
        group_priority: u8,
        /// `ICC_BPR<n>_EL1`.
        binary_point: u8,
    },
    /// The CPU interface signals the interrupt to its CPU.
    Signaled(Cpu),
    /// The interrupt's number in the kernel.
    Irq(u32),
    /// The handler has run this many times.
    Runs(u64),
}

impl Fact {
    /// Returns the stage at which this fact is observed.
    pub const fn stage(self) -> Stage {
        match self {
            Self::Message(_)
            | Self::Line(_)
            | Self::PulseLost(_)
            | Self::OtherVectorPending(_)
            | Self::DataReplaced { .. } => Stage::Endpoint,
            Self::BusMaster | Self::Mapped { .. } => Stage::Bus,
            Self::Doorbell(_) | Self::Input(_) => Stage::Doorbell,
            Self::Event { .. }
            | Self::MessageIntid(_)
            | Self::RefusedCommands { .. }
            | Self::Unannounced { .. }
            | Self::Removed { .. }
            | Self::WrittenWhileBusy { .. }
            | Self::TranslationTableMissing { .. }
            | Self::SharedInterrupt { .. }
            | Self::Sender(_)
            | Self::Route { .. } => Stage::Translation,
            Self::Enabled(_) | Self::LevelSensitive | Self::ConfigurationByte { .. } => {
                Stage::Configuration
            }
            Self::Pending(_) | Self::OtherPending(_) => Stage::Pending,
            Self::Target(..) | Self::Routed(_) => Stage::Target,
            Self::WouldSignal(_) | Self::Signaled(_) | Self::GroupPriority { .. } => {
                Stage::Interface
            }
            Self::Irq(_) => Stage::Dispatch,
            Self::Runs(_) => Stage::Handler,
        }
    }

    /// Returns `true` if the fact shows a mistake, which may not stop the interrupt by itself.
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::WrittenWhileBusy { .. }
                | Self::TranslationTableMissing { .. }
                | Self::PulseLost(_)
                | Self::OtherVectorPending(_)
                | Self::DataReplaced { .. }
                | Self::OtherPending(_)
        )
    }

    /// Returns advice on the mistake that the fact shows, if it is the likely reason for the
    /// obstacle.
    pub(super) fn fix(self, obstacle: Obstacle) -> Option<&'static str> {
        Some(match self {
            Self::RefusedCommands { fix, .. } if obstacle.stage() == Stage::Translation => {
                return fix;
            }
            Self::Unannounced { wrapped: false, .. } if obstacle.stage() <= Stage::Pending => {
                "advance GITS_CWRITER past the command"
            }
            Self::WrittenWhileBusy { .. } if obstacle.stage() == Stage::Translation => {
                "wait until GITS_CTLR.Quiescent is 1 before writing the register"
            }
            Self::ConfigurationByte { .. } if matches!(obstacle, Obstacle::Disabled { .. }) => {
                "set bit 0 of the byte, or write the table's address to GICR_PROPBASER"
            }
            Self::PulseLost(_) => "make the interrupt edge-triggered in GICD_ICFGR<n>",
            Self::OtherPending(_) => {
                "request the INTID to which the device's line is wired: SPI n of a devicetree is \
                 INTID 32 + n, and PPI n is INTID 16 + n"
            }
            Self::GroupPriority { .. } => {
                "end the active interrupt with ICC_EOIR1_EL1, or lower the binary point, so that \
                 the interrupt preempts it"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Message(MsiMessage { address, data }) => {
                write!(f, "sends {data:#x} to {address:#x}")
            }
            Self::Line(Level::High) => f.write_str("the line is high"),
            Self::Line(Level::Low) => f.write_str("the line is low"),
            Self::PulseLost(interrupt) => write!(
                f,
                "a pulse on the line of INTID {interrupt} was lost, because the input is \
                 level-sensitive"
            ),
            Self::OtherVectorPending(vector) => {
                write!(
                    f,
                    "the device signals vector {vector}, which is masked and has its pending bit \
                     set"
                )
            }
            Self::DataReplaced { data, granted } => write!(
                f,
                "the function replaces low bits of the data {data:#x}, because Message Control \
                 grants {granted} vectors"
            ),
            Self::BusMaster => f.write_str("bus mastering is enabled"),
            Self::Mapped { iova, doorbell } => {
                write!(f, "the IOMMU maps {iova:#x} to the doorbell at {doorbell:#x}")
            }
            Self::Doorbell(address) => write!(f, "a controller receives messages at {address:#x}"),
            Self::Input(interrupt) => write!(f, "input of INTID {interrupt}"),
            Self::Event { device, event, interrupt } => {
                write!(f, "DeviceID {device}, EventID {event} maps to INTID {interrupt}")
            }
            Self::Sender(device) => write!(f, "the device has DeviceID {device}"),
            Self::RefusedCommands { count: 1, address, command, reason, operand, .. } => {
                let operand = Operand(operand);
                write!(f, "the ITS refused {command} at {address:#x}: {reason}{operand}")
            }
            Self::RefusedCommands { count, address, command, reason, operand, .. } => write!(
                f,
                "the ITS refused {count} commands; the first was {command} at {address:#x}: \
                 {reason}{}",
                Operand(operand)
            ),
            Self::Unannounced { command, address, write, wrapped } => {
                let old = if wrapped { ", unless it is an old command" } else { "" };
                write!(
                    f,
                    "the ITS does not execute {command} at {address:#x}, because GITS_CWRITER = \
                     {write:#x} does not include it{old}"
                )
            }
            Self::Removed { command, address } => {
                write!(f, "{command} at {address:#x} has removed the mapping")
            }
            Self::WrittenWhileBusy { register, value } => write!(
                f,
                "{register} was written with {value:#x} before GITS_CTLR.Quiescent was read as 1"
            ),
            Self::TranslationTableMissing { device, itt, bytes } => write!(
                f,
                "the interrupt translation table that MAPD gives DeviceID {device}, {bytes} bytes \
                 at {itt:#x}, is not in memory"
            ),
            Self::SharedInterrupt { interrupt, other, events } => {
                write!(f, "INTID {interrupt} is also mapped by {}", Sharing(other, events))
            }
            Self::MessageIntid(interrupt) => write!(f, "the message names INTID {interrupt}"),
            Self::Route { gsi, interrupt } => write!(f, "GSI {gsi} is routed to INTID {interrupt}"),
            Self::Enabled(priority) => write!(f, "enabled, priority {priority:#x}"),
            Self::LevelSensitive => {
                f.write_str("level-sensitive in GICD_ICFGR<n>, so that a pulse is lost")
            }
            Self::ConfigurationByte { address, byte } => {
                write!(f, "the configuration byte at {address:#x} is {byte:#04x}")
            }
            Self::Pending(interrupt) => write!(f, "INTID {interrupt} is pending"),
            Self::OtherPending(interrupt) => {
                write!(f, "INTID {interrupt} is pending, but no driver has claimed it")
            }
            Self::Target(cpu, TargetState::Awake) => write!(f, "CPU {cpu}, which is awake"),
            Self::Target(cpu, TargetState::NeedsKick) => {
                write!(f, "CPU {cpu}, which runs guest code or waits in WFI")
            }
            Self::Target(cpu, TargetState::Kicked) => {
                write!(f, "CPU {cpu}, which was kicked but has not returned yet")
            }
            Self::WouldSignal(cpu) => write!(f, "CPU {cpu} lets the interrupt through"),
            Self::Routed(cpu) => write!(f, "routed to CPU {cpu}"),
            Self::GroupPriority { priority, group_priority, binary_point } => write!(
                f,
                "priority {priority:#x} is compared as {group_priority:#x}, because the binary \
                 point (ICC_BPR<n>_EL1) is {binary_point}"
            ),
            Self::Signaled(cpu) => write!(f, "signaled to CPU {cpu}"),
            Self::Irq(number) => write!(f, "IRQ number {number}"),
            Self::Runs(1) => f.write_str("the handler has run once"),
            Self::Runs(runs) => write!(f, "the handler has run {runs} times"),
        }
    }
}
