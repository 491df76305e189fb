//! How a device, its attribute and a value are named.

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
    /// Which.
    pub attribute: Attribute,
    /// What it holds; the bits beyond its width are zero.
    pub value: u64,
}

/// An attribute could not be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{attribute:x?} of {device:?}: {errno}")]
pub struct KvmError {
    /// Of which device.
    pub device: KvmDevice,
    /// Which.
    pub attribute: Attribute,
    /// Why.
    pub errno: Errno,
}
