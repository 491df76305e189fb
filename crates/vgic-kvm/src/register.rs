//! KVM devices, and attributes together with their values.

use crate::abi::{Attribute, Errno};
use crate::refused_entry::RefusedEntry;

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
