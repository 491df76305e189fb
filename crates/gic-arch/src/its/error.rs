//! Command errors (IHI 0069 §5.3, "command errors"), with the codes that an ITS may report as
//! SErrors.

use super::Opcode;
use core::fmt;

/// Reason why a command is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CommandErrorReason {
    /// The DeviceID exceeds the range of the ITS or of its device table.
    DeviceOutOfRange,
    /// A MAPD command requests more EventID bits than the ITS supports.
    IttSizeOutOfRange,
    /// The redistributor in a MAPC, MOVALL or SYNC command does not exist.
    ProcessorNumberOutOfRange,
    /// The CollectionID exceeds the range of the ITS or of its collection table.
    CollectionOutOfRange,
    /// The device is not mapped.
    UnmappedDevice,
    /// The EventID exceeds the range of the device's table.
    EventOutOfRange,
    /// The INTID is not an implemented LPI.
    PhysicalIdOutOfRange,
    /// The event is not mapped.
    UnmappedInterrupt,
    /// The collection is not mapped.
    UnmappedCollection,
    /// The table entry is invalid.
    EntryInvalid,
}

impl CommandErrorReason {
    /// Returns the reason byte of the error code.
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

    /// Returns a description of the error.
    pub const fn description(self) -> &'static str {
        match self {
            Self::DeviceOutOfRange => "DeviceID out of range",
            Self::IttSizeOutOfRange => "too many EventID bits",
            Self::ProcessorNumberOutOfRange => "redistributor does not exist",
            Self::CollectionOutOfRange => "collection out of range",
            Self::UnmappedDevice => "device not mapped",
            Self::EventOutOfRange => "EventID out of range",
            Self::PhysicalIdOutOfRange => "INTID is not an implemented LPI",
            Self::UnmappedInterrupt => "event not mapped",
            Self::UnmappedCollection => "collection not mapped",
            Self::EntryInvalid => "table entry invalid",
        }
    }
}

impl fmt::Display for CommandErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}

/// A command that an ITS can't execute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommandError {
    /// Opcode of the command.
    pub opcode: Opcode,
    /// Reason why the ITS can't execute the command.
    pub reason: CommandErrorReason,
}

impl CommandError {
    /// Returns the 24-bit error code `0x01CCEE` that the architecture defines, where CC is the
    /// command's group and EE is the reason. CLEAR reports group 5 instead of its opcode 4, and
    /// MOVALL reports a redistributor that does not exist as reason 1.
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
