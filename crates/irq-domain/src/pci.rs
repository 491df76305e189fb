//! PCI functions as message stores: discovery of functions, and drivers for their MSI and MSI-X
//! capabilities.
//!
//! | step of a kernel | call |
//! |---|---|
//! | maps a host bridge's configuration space | [`Ecam::new`] over a [`MappedRegion`] |
//! | finds the functions, and assigns bus numbers and addresses | [`enumerate`] |
//! | starts to use a function | [`Function::enable`], [`Function::store`] |
//! | passes the store to the interrupt core | [`MsiDeviceConfig::new`](crate::MsiDeviceConfig::new) |
//! | assigns functions to different guests | [`enable_acs`], [`isolation_groups`] |
//!
//! A kernel that already has a PCI subsystem skips the first two steps. Its bus driver provides
//! access ([`ConfigSpace`] for one function, [`TableMemory`] for one of its memory regions) and
//! calls [`find_store`] to obtain a [`MessageStore`](msi_types::MessageStore).
//!
//! Source: PCI Local Bus 3.0 §6.7 and §6.8, PCI Express Base §6.12, §7.5 and §7.7.

mod access;
mod bar_sizing;
mod capabilities;
mod ecam;
mod enumerate;
mod function;
mod header;
mod isolation_groups;
mod mapped_region;
mod msi_store;
mod msix_store;
mod read_back;
mod windows;

pub use access::{AccessContext, ConfigSpace, EcamWindow, TableMemory};
pub use capabilities::{Capability, CapabilityIter, capabilities, extended_capability};
pub use ecam::{Ecam, EcamFunction};
pub use enumerate::enumerate;
pub use function::{Function, FunctionStore, find_store};
pub use isolation_groups::{Isolation, enable_acs, isolation_groups};
pub use mapped_region::MappedRegion;
pub use msi_store::MsiStore;
pub use msix_store::{MsixCapability, MsixParts, MsixStore};
pub use windows::{Bar, BarWidth};

use alloc::collections::TryReserveError;
use core::fmt;
use msi_types::pci::{msi, msix};

/// The reason why a function's capability cannot be used. All errors except
/// [`NotMapped`](Self::NotMapped), [`Unplaced`](Self::Unplaced) and [`NoMemory`](Self::NoMemory)
/// are faults of the device, or of the hypervisor that emulates it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// The function has no such capability.
    #[error("the function has no {} capability", CapabilityName(*id))]
    NoCapability {
        /// Capability ID.
        id: u8,
    },
    /// The capability's registers extend past the end of configuration space.
    #[error(
        "the {} capability at {offset:#x} reaches beyond the 256 bytes of configuration space",
        CapabilityName(*id)
    )]
    CapabilityTooLong {
        /// Capability ID.
        id: u8,
        /// Capability offset.
        offset: u16,
    },
    /// Multiple Message Capable holds a reserved value.
    #[error("the MSI capability claims 2^{log2} vectors, more than 32")]
    ReservedVectorCount {
        /// Field value.
        log2: u8,
    },
    /// The table or the pending bits refer to a base address register that does not exist.
    #[error("MSI-X refers to base address register {bir}, which does not exist")]
    ReservedBar {
        /// Register index.
        bir: u8,
    },
    /// The table or the pending bits do not fit in their memory region.
    #[error("MSI-X needs {end:#x} bytes of base address register {bir}, which has {length:#x}")]
    OutsideBar {
        /// Register index.
        bir: u8,
        /// End of the table or pending bits.
        end: u64,
        /// Region length in bytes.
        length: u64,
    },
    /// The function has neither an MSI-X nor an MSI capability.
    #[error("the function has neither MSI-X nor MSI")]
    NoMessages,
    /// The MSI-X table or its pending bits are in a region that has no address, or that the caller
    /// didn't map.
    #[error("MSI-X needs base address register {bir}, which is not mapped")]
    NotMapped {
        /// Register index.
        bir: u8,
    },
    /// A memory region has no address, so the function must not decode any of its regions. The host
    /// bridge's windows are too small, or the register cannot hold any address in them.
    #[error("base address register {bir} has no address: the windows have no room for it")]
    Unplaced {
        /// Register index.
        bir: u8,
    },
    /// The kernel's heap is exhausted. The function was not changed.
    #[error("the kernel has no memory for the state of the function's vectors")]
    NoMemory,
}

/// Name for a capability in error messages.
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
