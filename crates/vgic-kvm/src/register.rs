//! KVM devices, attributes together with their values, and the errors of accesses.

use crate::abi::{Attribute, Errno};
use gic_arch::IntId;
use gic_arch::its::CollectionId;
use msi_types::{DeviceId, EventId};
use vgic::saved_state::NotRestorable;

/// A device that has attributes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KvmDevice {
    /// The GICv3.
    Gic,
    /// An ITS, by its index in [`VgicConfig::its`](vgic::VgicConfig::its).
    Its(usize),
}

/// An attribute and its value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KvmRegister {
    /// Device that has the attribute.
    pub device: KvmDevice,
    /// The attribute.
    pub attribute: Attribute,
    /// Value of the attribute. Bits beyond the attribute's width are zero.
    pub value: u64,
}

/// Error for an attribute that could not be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{attribute:x?} of {device:?}: {errno}{}",
    entry.map(|entry| alloc::format!("; {entry}")).unwrap_or_default()
)]
#[non_exhaustive]
pub struct KvmError {
    /// Device that has the attribute.
    pub device: KvmDevice,
    /// The attribute.
    pub attribute: Attribute,
    /// Error number that KVM returns.
    pub errno: Errno,
    /// Table entry that a restore of an ITS's tables refused.
    pub entry: Option<RefusedEntry>,
}

impl KvmError {
    /// Creates the error for an attribute that is not a restore of tables.
    pub(super) const fn new(device: KvmDevice, attribute: Attribute, errno: Errno) -> Self {
        Self { device, attribute, errno, entry: None }
    }
}

/// Access to the attributes of a VM's GICv3 and ITSes. A VMM implements this trait with the ioctls
/// `KVM_GET_DEVICE_ATTR` and `KVM_SET_DEVICE_ATTR` on the devices' file descriptors.
pub trait KvmAttributes {
    /// Reads an attribute.
    ///
    /// # Errors
    /// The error number that KVM returns.
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno>;

    /// Writes an attribute. To take a snapshot, only [`Attribute::Control`] is written, which makes
    /// KVM save its tables.
    ///
    /// # Errors
    /// The error number that KVM returns.
    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno>;
}

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
