//! Command errors (IHI 0069 §5.3, "command errors"): the code that an ITS reports in an SError,
//! where it does.

use super::Opcode;
use core::fmt;

/// Defect of a command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CommandErrorReason {
    /// The DeviceID is beyond the ITS or its device table.
    DeviceOutOfRange,
    /// MAPD: more EventID bits than the ITS has.
    IttSizeOutOfRange,
    /// MAPC, MOVALL, SYNC: no such redistributor.
    ProcessorNumberOutOfRange,
    /// The collection number is beyond the ITS or its collection table.
    CollectionOutOfRange,
    /// The device is not mapped.
    UnmappedDevice,
    /// The EventID is beyond the device's table.
    EventOutOfRange,
    /// The INTID is no implemented LPI.
    PhysicalIdOutOfRange,
    /// The event is not mapped.
    UnmappedInterrupt,
    /// The collection is not mapped.
    UnmappedCollection,
    /// The table entry makes no sense.
    EntryInvalid,
}

impl CommandErrorReason {
    /// The reason byte of the error code.
    const fn code(self) -> u32 {
        match self {
            Self::DeviceOutOfRange => 0x01,
            Self::IttSizeOutOfRange | Self::ProcessorNumberOutOfRange => 0x02,
            Self::CollectionOutOfRange => 0x03,
            Self::UnmappedDevice => 0x04,
            Self::EventOutOfRange => 0x05,
            Self::PhysicalIdOutOfRange => 0x06,
            Self::UnmappedInterrupt => 0x07,
            Self::UnmappedCollection => 0x09,
            Self::EntryInvalid => 0x10,
        }
    }
}

impl fmt::Display for CommandErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceOutOfRange => "DeviceID out of range",
            Self::IttSizeOutOfRange => "too many EventID bits",
            Self::ProcessorNumberOutOfRange => "no such redistributor",
            Self::CollectionOutOfRange => "collection out of range",
            Self::UnmappedDevice => "device not mapped",
            Self::EventOutOfRange => "EventID out of range",
            Self::PhysicalIdOutOfRange => "INTID is no implemented LPI",
            Self::UnmappedInterrupt => "event not mapped",
            Self::UnmappedCollection => "collection not mapped",
            Self::EntryInvalid => "table entry invalid",
        })
    }
}

/// A command that an ITS could not execute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommandError {
    /// Number of the command.
    pub opcode: Opcode,
    /// Defect that the ITS found.
    pub reason: CommandErrorReason,
}

impl CommandError {
    /// The architecture's 24-bit code, `0x01CCEE`: the command's group and the reason. CLEAR
    /// reports group 5, not its opcode 4; MOVALL reports a missing redistributor as reason 1.
    pub const fn code(self) -> u32 {
        let group = match self.opcode {
            Opcode::Clear => 0x05,
            other => other.number() as u32,
        };
        let reason = match (self.opcode, self.reason) {
            (Opcode::Movall, CommandErrorReason::ProcessorNumberOutOfRange) => 0x01,
            (_, reason) => reason.code(),
        };
        0x01_0000 | group << 8 | reason
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:#08x})", self.opcode.name(), self.reason, self.code())
    }
}
