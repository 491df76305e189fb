//! Commands and memory tables that software shares with an ITS.

mod command;
mod error;
mod identifiers;
mod table;
mod virtual_command;

pub use command::{
    COMMAND_BYTES, COMMAND_WORDS, Command, MapAction, Opcode, RawCommand, UnknownOpcode,
};
pub use error::{CommandError, CommandErrorReason};
pub use identifiers::{CollectionId, ITT_ALIGNMENT, RdBase, VpeId};
pub use table::Level1Entry;
pub use virtual_command::VirtualCommand;
