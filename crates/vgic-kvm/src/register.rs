//! Names of devices, and their attributes with values.

use crate::abi::{Attribute, Errno};

/// A device that has attributes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KvmDevice {
    /// The GICv3.
    Gic,
    /// An ITS: index into [`VgicConfig::its`](vgic::VgicConfig::its).
    Its(usize),
}

/// An attribute and its value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KvmRegister {
    /// Of which device.
    pub device: KvmDevice,
    /// The attribute.
    pub attribute: Attribute,
    /// Its value; the bits beyond its width are zero.
    pub value: u64,
}

/// An attribute could not be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{attribute:x?} of {device:?}: {errno}")]
#[non_exhaustive]
pub struct KvmError {
    /// Of which device.
    pub device: KvmDevice,
    /// The attribute.
    pub attribute: Attribute,
    /// KVM's error.
    pub errno: Errno,
}
