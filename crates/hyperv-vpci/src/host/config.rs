//! The configuration of a host's end, and of the functions that it offers.

use crate::protocol::{BARS, DeviceDescription, Version};

/// Configuration of a host's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HostConfig {
    /// The highest version to speak.
    pub highest: Version,
    /// Greatest number of vectors of one function.
    pub quota: u16,
    /// Number of the guest's processors: VP indices are below.
    pub processors: u16,
    /// Address in the messages. No other doorbell of the machine listens there.
    pub address: u64,
    /// The bus's instance GUID, in memory order.
    pub instance: [u8; 16],
}

impl HostConfig {
    /// A host's end for a guest of so many processors, with its messages' address and the bus's
    /// instance GUID. It speaks version 1.4, and a function has up to 64 vectors.
    pub const fn new(processors: u16, address: u64, instance: [u8; 16]) -> Self {
        Self { highest: Version::V1_4, quota: 64, processors, address, instance }
    }

    msi_types::setters! {
        with_highest: highest: Version,
        with_quota: quota: u16,
        with_processors: processors: u16,
        with_address: address: u64,
        with_instance: instance: [u8; 16],
    }
}

/// A function that is offered to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HostFunction {
    /// Description of the function, with its slot.
    pub description: DeviceDescription,
    /// Its base address registers, as they read after ones were written.
    pub bars: [u32; BARS],
}

impl HostFunction {
    /// A function with this description and these base address registers.
    pub const fn new(description: DeviceDescription, bars: [u32; BARS]) -> Self {
        Self { description, bars }
    }
}
