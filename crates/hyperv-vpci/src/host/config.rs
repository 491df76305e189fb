//! Configuration for a host's end and the functions that it offers.

use crate::protocol::{BARS, DeviceDescription, Version};

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
