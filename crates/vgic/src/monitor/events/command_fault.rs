//! ITS command faults.

use core::fmt;
use gic_arch::its::{CommandError, Opcode, UnknownOpcode};

/// Reason for not executing a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandFault {
    /// The guest's command is invalid.
    #[error("{} (error code {:#08x})", .0.reason, .0.code())]
    Refused(CommandError),
    /// The opcode of the guest's command does not exist.
    #[error("no physical ITS command has this opcode")]
    Unknown(UnknownOpcode),
    /// The model's budget for entries, devices or table nodes is exhausted.
    #[error("the model's budget for mappings is exhausted")]
    NoRoom(Opcode),
    /// There is not enough heap memory for the command's mapping. The command may succeed later.
    #[error("the heap has no memory left")]
    OutOfMemory(Opcode),
    /// The queue is outside guest memory, and stalls regardless of the policy.
    #[error("the guest has no memory there, and the queue stalls")]
    Unreadable,
}

/// ITS command that was not executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FailedCommand {
    /// Guest physical address of the command in its queue.
    pub address: u64,
    /// Reason for the failure, with the command's opcode.
    pub fault: CommandFault,
}

impl fmt::Display for FailedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command at {:#x}", self.address)?;
        match self.fault {
            CommandFault::Refused(CommandError { opcode, .. })
            | CommandFault::NoRoom(opcode)
            | CommandFault::OutOfMemory(opcode) => {
                write!(f, " (opcode {:#04x}, {})", opcode.number(), opcode.name())?;
            }
            CommandFault::Unknown(UnknownOpcode(opcode)) => {
                write!(f, " (opcode {opcode:#04x}, unknown)")?;
            }
            CommandFault::Unreadable => {}
        }
        write!(f, ": {}", self.fault)
    }
}

/// Command faults at one ITS so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CommandFaultLog {
    /// Number of faults.
    pub count: u64,
    /// The first fault.
    pub first: Option<FailedCommand>,
    /// The most recent fault.
    pub last: Option<FailedCommand>,
}

impl fmt::Display for CommandFaultLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{} command faults, last: {last}", self.count),
            None => f.write_str("no command faults"),
        }
    }
}
