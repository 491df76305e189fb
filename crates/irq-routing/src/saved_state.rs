//! Saved states for MSI-X tables, MSI capabilities and virtio devices' vectors.
//!
//! A state contains exactly what a guest can observe. It doesn't contain GSIs, routes or senders,
//! so the restored function keeps its own. A state that no guest could have produced is refused as
//! a whole. With the feature `serde`, the types can be serialized in any format; in self-describing
//! formats, deserialization rejects unknown fields.
//!
//! After a save, devices must no longer signal on the source machine: such messages would not be
//! part of the state. A restore replaces the current state, and sends pending messages that are not
//! masked.
//!
//! ```
//! use irq_routing::msix::{MsixTable, Signaled};
//! # use irq_routing::{GsiSpace, Inputs, Router, Sender};
//! # use msi_types::{Delivery, DeviceId, Level, Line, SetLine};
//! # use msi_types::pci::msix::Control;
//! # use std::sync::Arc;
//! # struct Gic;
//! # impl SetLine for Gic {
//! #     fn set_line(&self, _: Line, _: Level) -> Delivery { Delivery::Blocked }
//! #     fn pulse(&self, _: Line) -> Delivery { Delivery::Blocked }
//! # }
//! # let router = Arc::new(Router::new(GsiSpace::default(), Inputs::new(Arc::new(Gic)))?);
//! # let new = || MsixTable::new(2, Sender::Device(DeviceId::new(8)), router.clone());
//! let table = new()?;
//! table.write_control(Control::new().with_enable(true));
//! assert_eq!(table.signal(1), Signaled::Held);
//! let saved = table.save();
//!
//! let restored = new()?;
//! restored.restore(&saved)?;
//! assert_eq!(restored.save(), saved);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::config_space::BusMaster;
use alloc::vec::Vec;

/// Format version that this library writes. The library also reads version 1, which has no
/// `bus_master` and is therefore readable only in self-describing formats.
pub const VERSION: u32 = 2;

/// Saved state of an [`MsixTable`](crate::msix::MsixTable).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct MsixState {
    /// Version of the format; [`VERSION`] in a state that this library saves.
    pub version: u32,
    /// Message Control.
    pub control: u16,
    /// Bus Master Enable of the function's Command register.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bus_master: BusMaster,
    /// Words of the entries: address low, address high, data, vector control.
    pub entries: Vec<[u32; 4]>,
    /// Pending vectors, in ascending order.
    pub pending: Vec<u16>,
}

/// Saved state of an [`MsiCapability`](crate::msi::MsiCapability).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct MsiState {
    /// Version of the format; [`VERSION`] in a state that this library saves.
    pub version: u32,
    /// Message Control.
    pub control: u16,
    /// Bus Master Enable of the function's Command register.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bus_master: BusMaster,
    /// Message Address. The upper half is 0 if the address has 32 bits.
    pub address: u64,
    /// Message Data.
    pub data: u16,
    /// Mask bits, or 0 if the capability has none.
    pub masks: u32,
    /// Pending messages, one bit per vector. The guest reads them as pending bits if the capability
    /// has them.
    pub pending: u32,
}

/// Saved state of a [`VirtioNotifier`](crate::virtio::VirtioNotifier).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct VirtioState {
    /// Version of the format; [`VERSION`] in a state that this library saves.
    pub version: u32,
    /// Vector of configuration changes, or [`NO_VECTOR`](crate::virtio::NO_VECTOR).
    pub configuration_vector: u16,
    /// Vectors of the queues, by queue, or [`NO_VECTOR`](crate::virtio::NO_VECTOR).
    pub queue_vectors: Vec<u16>,
    /// ISR status.
    pub isr: u8,
}

/// Reason why a state was not restored. The function's current state is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The state's version is not supported.
    #[error("the state has version {0}, but this library reads versions 1 to {VERSION}")]
    Version(u32),
    /// The state belongs to another function: its read-only bits or its number of entries differ.
    #[error(
        "the state is of a function with Message Control {saved:#06x} and {entries} entries; \
         here it is {here:#06x}"
    )]
    OtherFunction {
        /// Message Control in the state.
        saved: u16,
        /// Number of entries in the state; 0 for an MSI capability.
        entries: usize,
        /// Message Control of this function.
        here: u16,
    },
    /// A register has a bit set that no guest can set.
    #[error("the state's {register} has bits that no guest can set: {value:#x}")]
    ReservedBits {
        /// Name of the register.
        register: &'static str,
        /// Value of the register, or of the bits in question.
        value: u64,
    },
    /// A pending vector does not exist, or the pending vectors are not in ascending order.
    #[error("the state's pending vector {0} does not exist, or is not in ascending order")]
    Pending(u16),
    /// The state belongs to a virtio device with another number of queues.
    #[error("the state is of a device with {saved} queues; this device has {here}")]
    Queues {
        /// Number of queues in the state.
        saved: usize,
        /// Number of queues of this device.
        here: usize,
    },
    /// A queue or the configuration has a vector that the MSI-X table doesn't have.
    #[error("the state's vector {0} does not exist in the MSI-X table")]
    Vector(u16),
}

pub(crate) fn check_version(version: u32) -> Result<(), StateError> {
    if (1..=VERSION).contains(&version) { Ok(()) } else { Err(StateError::Version(version)) }
}
