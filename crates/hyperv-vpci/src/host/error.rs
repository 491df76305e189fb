//! Errors of the host's end.

use crate::channel::ChannelError;
use crate::protocol::{ProtocolError, Slot};

/// Reason for which the host's end failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The caller offers two functions in one slot.
    #[error("slot {0} has a function already")]
    SlotInUse(Slot),
    /// The caller names a slot that is empty.
    #[error("slot {0} is empty")]
    NoFunction(Slot),
    /// The host's heap is exhausted.
    #[error("no memory for the bus")]
    NoMemory,
    /// The guest sends requests before it negotiated, negotiates twice, or completes what nobody
    /// asked.
    #[error("the guest's message is out of order")]
    OutOfOrder,
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A message cannot be emitted: the caller offers more than a bus holds.
    #[error("a message cannot be emitted: {0}")]
    Emit(ProtocolError),
}

/// Reason for which a saved state is refused. Nothing was restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state's format is of another version of this crate.
    #[error("format {0} is not known")]
    UnknownFormat(u32),
    /// The state names a version that this host does not speak.
    #[error("protocol {0:#x} is not one that this host speaks")]
    UnknownVersion(u32),
    /// The state has functions, a window or an answer before there is a version.
    #[error("the state is not that of any bus")]
    Inconsistent,
    /// The state's function is not offered here, or is there twice.
    #[error("slot {0:#x} has no function here, or two")]
    NoFunction(u32),
    /// A function's vectors overlap others, or cannot be.
    #[error("the function in slot {slot} cannot have {count} vectors from {vector} on")]
    BadMapping {
        /// The function.
        slot: Slot,
        /// The first vector.
        vector: u32,
        /// Number of vectors.
        count: u16,
    },
    /// The host itself failed.
    #[error(transparent)]
    Host(#[from] HostError),
}
