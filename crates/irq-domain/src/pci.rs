//! PCI functions as message stores: discovery of functions, and drivers of their MSI and MSI-X
//! capabilities.
//!
//! | a kernel | calls |
//! |---|---|
//! | maps the configuration space of a host bridge | [`Ecam::new`] over a [`MappedRegion`] |
//! | finds its functions, with bus numbers, addresses and aliases | [`enumerate`] |
//! | takes a function into use | [`Function::enable`], [`Function::store`] |
//! | passes the store to the interrupt core | [`MsiDeviceConfig::new`](crate::MsiDeviceConfig::new) |
//!
//! A kernel that has a PCI subsystem skips the first two: its bus driver provides access
//! ([`ConfigSpace`] for one function, [`TableMemory`] for one of its memory regions) and calls
//! [`find_store`] for a [`MessageStore`](msi_types::MessageStore).
//!
//! Source: PCI Local Bus 3.0 §6.7 and §6.8, PCI Express Base §7.5 and §7.7.

mod access;
mod bar_sizing;
mod capabilities;
mod ecam;
mod enumerate;
mod function;
mod header;
mod mapped_region;
mod msi_store;
mod msix_store;
mod store;
mod windows;

pub use access::{AccessContext, ConfigSpace, EcamWindow, TableMemory};
pub use capabilities::{Capability, CapabilityIter, capabilities};
pub use ecam::{Ecam, EcamFunction};
pub use enumerate::enumerate;
pub use function::Function;
pub use mapped_region::MappedRegion;
pub use msi_store::MsiStore;
pub use msix_store::{MsixCapability, MsixParts, MsixStore};
pub use store::{FunctionStore, find_store};
pub use windows::{Bar, BarWidth};

use alloc::collections::TryReserveError;
use core::fmt;
use msi_types::pci::{msi, msix};

/// A function's capability cannot be driven. The fault is the device's, or its hypervisor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// The function has no such capability.
    #[error("the function has no {} capability", CapabilityName(*id))]
    NoCapability {
        /// Its ID.
        id: u8,
    },
    /// The capability's registers reach beyond configuration space.
    #[error(
        "the {} capability at {offset:#x} reaches beyond the 256 bytes of configuration space",
        CapabilityName(*id)
    )]
    CapabilityTooLong {
        /// Its ID.
        id: u8,
        /// Its offset.
        offset: u16,
    },
    /// Multiple Message Capable holds a reserved value.
    #[error("the MSI capability claims 2^{log2} vectors, more than 32")]
    ReservedVectorCount {
        /// The field's value.
        log2: u8,
    },
    /// The table or the pending bits lie in a base address register that does not exist.
    #[error("MSI-X refers to base address register {bir}, which does not exist")]
    ReservedBar {
        /// The register's index.
        bir: u8,
    },
    /// The table or the pending bits do not fit their memory region.
    #[error("MSI-X needs {end:#x} bytes of base address register {bir}, which has {length:#x}")]
    OutsideBar {
        /// The register's index.
        bir: u8,
        /// End of the table or of the pending bits.
        end: u64,
        /// The region's length in bytes.
        length: u64,
    },
    /// The function has neither an MSI-X nor an MSI capability.
    #[error("the function has neither MSI-X nor MSI")]
    NoMessages,
    /// The MSI-X table or its pending bits are in a region that has no address, or that the caller
    /// did not map.
    #[error("MSI-X needs base address register {bir}, which is not mapped")]
    NotMapped {
        /// The register's index.
        bir: u8,
    },
    /// A memory region has no address, so the function must not decode any. The host bridge's
    /// windows are too small, or none fits the register.
    #[error("base address register {bir} has no address: the windows have no room for it")]
    Unplaced {
        /// The register's index.
        bir: u8,
    },
    /// The kernel's heap is exhausted. The function was not touched.
    #[error("the kernel has no memory for the state of the function's vectors")]
    NoMemory,
}

/// Name of a capability for messages.
struct CapabilityName(u8);

impl fmt::Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            msi::CAPABILITY_ID => f.write_str("MSI"),
            msix::CAPABILITY_ID => f.write_str("MSI-X"),
            id => write!(f, "PCI {id:#04x}"),
        }
    }
}

impl From<TryReserveError> for PciError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}
