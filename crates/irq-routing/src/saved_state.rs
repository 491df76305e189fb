//! Saved states of MSI-X tables and MSI capabilities, as plain data.
//!
//! A state is the whole of what a guest can observe, and nothing else. It has no GSI, no route and
//! no sender, which the restored function has of its own. A state that no guest could have brought
//! about is refused as a whole. With the feature `serde` the types serialise in any format;
//! self-describing ones reject a field that the version does not have.
//!
//! Devices must not signal between a save and the end of the machine that was saved: such a message
//! is not part of the state. A restore replaces what was there, and sends what is pending and not
//! masked.
//!
//! ```
//! use irq_routing::msix::{MsixTable, Signalled};
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
//! assert_eq!(table.signal(1), Signalled::Held);
//! let saved = table.save();
//!
//! let restored = new()?;
//! restored.restore(&saved)?;
//! assert_eq!(restored.save(), saved);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::vec::Vec;

/// The version of the formats that this library writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// State of an [`MsixTable`](crate::msix::MsixTable).
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct MsixState {
    /// The version of the format: [`VERSION`].
    pub version: u32,
    /// Message Control.
    pub control: u16,
    /// The entries' words: address low and high, data, vector control.
    pub entries: Vec<[u32; 4]>,
    /// The pending vectors, ascending.
    pub pending: Vec<u16>,
}

/// State of an [`MsiCapability`](crate::msi::MsiCapability).
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct MsiState {
    /// The version of the format: [`VERSION`].
    pub version: u32,
    /// Message Control.
    pub control: u16,
    /// Message Address; the upper half is 0 if the address has 32 bits.
    pub address: u64,
    /// Message Data.
    pub data: u16,
    /// Mask bits; 0 if there are none.
    pub masks: u32,
    /// Messages that wait, by vector: the pending bits, if there are any.
    pub pending: u32,
}

/// Reason for which a state is not restored. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The state has a format that this library does not know.
    #[error("the state has version {0}, but this library reads version {VERSION}")]
    Version(u32),
    /// The state is of another function: its read-only bits, or its number of entries, differ.
    #[error(
        "the state is of a function with Message Control {saved:#06x} and {entries} entries; \
         here it is {here:#06x}"
    )]
    OtherFunction {
        /// Message Control in the state.
        saved: u16,
        /// Entries in the state; 0 for a capability of MSI.
        entries: usize,
        /// Message Control here.
        here: u16,
    },
    /// A register has a bit that no guest can set.
    #[error("the state's {register} has bits that no guest can set: {value:#x}")]
    ReservedBits {
        /// Name of the register.
        register: &'static str,
        /// Its value.
        value: u64,
    },
    /// The pending vectors do not ascend, or do not exist.
    #[error("the state's pending vector {0} does not exist, or is not in ascending order")]
    Pending(u16),
}
