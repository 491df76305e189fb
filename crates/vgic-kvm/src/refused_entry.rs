//! Entries of ITS tables that a restore refuses.

use gic_arch::IntId;
use gic_arch::its::CollectionId;
use msi_types::{DeviceId, EventId};
use vgic::saved_state::NotRestorable;

/// Entry of an ITS's tables that a restore refuses, and its fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedEntry {
    /// Entry of the collection table: its index, and the collection.
    #[error("entry {0} of the collection table, collection {1}: {2}")]
    Collection(u32, CollectionId, EntryFault),
    /// Entry of a table of collections or devices that is not in guest memory: its address.
    #[error("guest memory at {0:#x} cannot be read")]
    Unreadable(u64),
    /// Entry of the device table.
    #[error("DeviceID {0} in the device table: {1}")]
    Device(DeviceId, EntryFault),
    /// Entry of a device's interrupt translation table.
    #[error("EventID {1} in the table of DeviceID {0}: {2}")]
    Event(DeviceId, EventId, EntryFault),
    /// An object of the state that the tables describe.
    #[error(transparent)]
    State(NotRestorable),
}

/// Fault of a table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// The collection's number exceeds the table or `GITS_TYPER`.
    #[error("the collection exceeds the limit of {0} collections")]
    CollectionOutOfRange(u64),
    /// The collection already has an entry.
    #[error("the collection already has an entry")]
    Duplicate,
    /// No vCPU has the number of the collection's target.
    #[error("no vCPU has the vcpu_id {0}")]
    NoCpu(u64),
    /// The DeviceID exceeds 16 bits.
    #[error("the DeviceID exceeds 16 bits")]
    DeviceIdBits,
    /// The device has too many EventID bits.
    #[error("{0} EventID bits are not supported")]
    EventBits(u8),
    /// The distance to the next entry exceeds the table.
    #[error("the distance {0} to the next entry exceeds the table")]
    Distance(u16),
    /// The INTID is not an LPI of at most 16 bits.
    #[error("INTID {} is not a supported LPI", .0.get())]
    NotLpi(IntId),
    /// The event's collection is not in the collection table.
    #[error("collection {0} is not in the collection table")]
    NoCollection(CollectionId),
    /// The entry, or a byte of its LPI, is not in guest memory.
    #[error("guest memory at {0:#x} cannot be read")]
    Unreadable(u64),
}
