//! PCI functions as message stores: finding the MSI and MSI-X capabilities, and driving them.
//!
//! The bus driver gives access ([`ConfigSpace`] for one function, [`TableMemory`] for one of its
//! memory regions) and gets a [`MessageStore`](msi_types::MessageStore) for
//! [`MsiDevice`](crate::MsiDevice).
//!
//! Source: PCI Local Bus 3.0 §6.7 and §6.8, PCI Express Base §7.7.

mod access;
mod capabilities;
mod msi_store;
mod msix_store;

pub use access::{AccessContext, ConfigSpace, TableMemory};
pub use capabilities::{Capabilities, Capability, capabilities};
pub use msi_store::MsiStore;
pub use msix_store::{MsixCapability, MsixParts, MsixStore};

use alloc::collections::TryReserveError;

/// A function's capability cannot be driven. The fault is the device's, or its hypervisor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// The function has no such capability.
    #[error("the function has no capability {id:#x}")]
    NoCapability {
        /// Its ID.
        id: u8,
    },
    /// The capability's registers reach beyond configuration space.
    #[error(
        "capability {id:#x} at {offset:#x} reaches beyond the 256 bytes of configuration space"
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
    /// The kernel's heap is exhausted. The function was not touched.
    #[error("the kernel has no memory for the state of the function's vectors")]
    NoMemory,
}

impl From<TryReserveError> for PciError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}
