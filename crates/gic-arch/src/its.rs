//! Commands and memory tables that software shares with an ITS.

mod command;
mod error;
mod identifiers;
mod table;

pub use command::{
    COMMAND_BYTES, COMMAND_WORDS, Command, MapAction, Opcode, RawCommand, UnknownOpcode,
};
pub use error::{CommandError, CommandErrorReason};
pub use identifiers::{CollectionId, ITT_ALIGNMENT, RdBase};
pub use table::Level1Entry;
