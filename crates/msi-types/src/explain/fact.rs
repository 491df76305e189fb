//! Observations at the stages of an interrupt's path.

use super::Stage;
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
        /// Name of the first refused command.
        command: &'static str,
        /// Reason why the first command was refused.
        reason: &'static str,
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
    /// The byte that configures an LPI, in the table that its redistributor uses.
    ConfigurationByte {
        /// Address of the byte.
        address: u64,
        /// The byte: priority in bits 7:2, enable in bit 0.
        byte: u8,
    },
    /// The interrupt is pending.
    Pending(HwIrq),
    /// The interrupt is routed to a CPU that can take it.
    Target(Cpu, TargetState),
    /// The CPU interface would signal the interrupt if it were pending, and `PSTATE.I`, if known,
    /// does not mask it. The pending state is not known.
    WouldSignal(Cpu),
    /// The interrupt is routed to this CPU, whose state is unknown.
    Routed(Cpu),
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
            Self::Message(_) | Self::Line(_) => Stage::Endpoint,
            Self::BusMaster | Self::Mapped { .. } => Stage::Bus,
            Self::Doorbell(_) | Self::Input(_) => Stage::Doorbell,
            Self::Event { .. }
            | Self::MessageIntid(_)
            | Self::RefusedCommands { .. }
            | Self::Sender(_)
            | Self::Route { .. } => Stage::Translation,
            Self::Enabled(_) | Self::ConfigurationByte { .. } => Stage::Configuration,
            Self::Pending(_) => Stage::Pending,
            Self::Target(..) | Self::Routed(_) => Stage::Target,
            Self::WouldSignal(_) | Self::Signaled(_) => Stage::Interface,
            Self::Irq(_) => Stage::Dispatch,
            Self::Runs(_) => Stage::Handler,
        }
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
            Self::RefusedCommands { count: 1, command, reason } => {
                write!(f, "the ITS refused {command}: {reason}")
            }
            Self::RefusedCommands { count, command, reason } => {
                write!(f, "the ITS refused {count} commands; the first was {command}: {reason}")
            }
            Self::MessageIntid(interrupt) => write!(f, "the message names INTID {interrupt}"),
            Self::Route { gsi, interrupt } => write!(f, "GSI {gsi} is routed to INTID {interrupt}"),
            Self::Enabled(priority) => write!(f, "enabled, priority {priority:#x}"),
            Self::ConfigurationByte { address, byte } => {
                write!(f, "the configuration byte at {address:#x} is {byte:#04x}")
            }
            Self::Pending(interrupt) => write!(f, "INTID {interrupt} is pending"),
            Self::Target(cpu, TargetState::Awake) => write!(f, "CPU {cpu}, which is awake"),
            Self::Target(cpu, TargetState::NeedsKick) => {
                write!(f, "CPU {cpu}, which runs guest code or waits in WFI")
            }
            Self::Target(cpu, TargetState::Kicked) => {
                write!(f, "CPU {cpu}, which was kicked but has not returned yet")
            }
            Self::WouldSignal(cpu) => write!(f, "CPU {cpu} lets the interrupt through"),
            Self::Routed(cpu) => write!(f, "routed to CPU {cpu}"),
            Self::Signaled(cpu) => write!(f, "signaled to CPU {cpu}"),
            Self::Irq(number) => write!(f, "IRQ number {number}"),
            Self::Runs(1) => f.write_str("the handler has run once"),
            Self::Runs(runs) => write!(f, "the handler has run {runs} times"),
        }
    }
}
