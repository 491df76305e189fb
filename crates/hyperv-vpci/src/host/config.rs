//! Configuration for a host's end and the functions that it offers, and the end's errors.

use crate::channel::ChannelError;
use crate::protocol::{BARS, DeviceDescription, ProtocolError, Slot, Version};

/// Configuration for a host's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HostConfig {
    pub(crate) highest: Version,
    pub(crate) quota: u16,
    /// Number of processors in the guest. VP indices are less than this.
    pub(crate) processors: u16,
    /// Doorbell address in all messages. The machine must have no other doorbell at this address.
    pub(crate) address: u64,
    pub(crate) vtom: u64,
    /// The bus's instance GUID, in memory order.
    pub(crate) instance: [u8; 16],
}

impl HostConfig {
    /// Creates a configuration for a guest with this many processors. Accepts protocol versions up
    /// to 1.4, and up to 64 vectors per function.
    pub const fn new(processors: u16, address: u64, instance: [u8; 16]) -> Self {
        Self { highest: Version::V1_4, quota: 64, processors, address, vtom: 0, instance }
    }

    msi_types::setters! {
        /// Sets the highest protocol version to accept.
        with_highest: highest: Version,
        /// Sets the maximum number of vectors per function.
        with_quota: quota: u16,
        /// Sets the bit of guest physical addresses above the virtual top of memory (vTOM), with
        /// which a confidential guest marks memory that it shares with the host, or 0 if it has
        /// none.
        with_vtom: vtom: u64,
    }
}

/// A function to offer to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HostFunction {
    /// Description, including the slot.
    pub description: DeviceDescription,
    /// Values that the base address registers return after all ones were written to them.
    pub bars: [u32; BARS],
}

impl HostFunction {
    /// Creates a function with this description and these base address registers.
    pub const fn new(description: DeviceDescription, bars: [u32; BARS]) -> Self {
        Self { description, bars }
    }
}

/// Reason why an operation of the host's end failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The caller offered a function in a slot that is occupied.
    #[error("slot {0} already has a function")]
    SlotInUse(Slot),
    /// The caller named an empty slot.
    #[error("slot {0} is empty")]
    NoFunction(Slot),
    /// The guest's ring has no room for the list of functions, which cannot be split. The guest
    /// must open the channel with a larger ring, or the host must offer fewer functions.
    #[error("the list of functions needs {needed} bytes, but the guest's ring only takes {room}")]
    RingTooSmall {
        /// Length of the list in bytes.
        needed: usize,
        /// Length in bytes of the longest message that fits the ring.
        room: usize,
    },
    /// The host's heap is exhausted.
    #[error("out of memory for the bus")]
    NoMemory,
    /// The guest sent requests before negotiating a version, negotiated twice, or sent a
    /// completion.
    #[error("the guest's message is out of order")]
    OutOfOrder,
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A message cannot be emitted because the caller has offered too many functions.
    #[error("a message cannot be emitted: {0}")]
    Emit(ProtocolError),
}

/// Reason why a saved state is refused. Nothing was restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state has the format of another version of this crate.
    #[error("the state has format {0}, which is not supported")]
    UnknownFormat(u32),
    /// The state names a protocol version that this host does not accept.
    #[error("the state's protocol version {0:#x} is not accepted by this host")]
    UnknownVersion(u32),
    /// The parts of the state contradict each other, for example a window without a version.
    #[error("the state is inconsistent: no bus can be in it")]
    Inconsistent,
    /// This host does not offer a function in the state, or the state's functions are not in
    /// ascending slot order.
    #[error("the state's function in slot {0:#x} is not offered here, or is out of order")]
    NoFunction(u32),
    /// The vectors of a function overlap other vectors, or are not valid.
    #[error("the function in slot {slot} cannot have {count} vectors starting at {vector}")]
    BadMapping {
        /// The function.
        slot: Slot,
        /// The first vector.
        vector: u32,
        /// Number of vectors.
        count: u16,
    },
    /// The host could not be created, or a function could not be offered.
    #[error(transparent)]
    Host(#[from] HostError),
}
