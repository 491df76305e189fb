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

mod bar_sizing;
mod capabilities;
mod ecam;
mod enumerate;
mod function;
mod isolation_groups;
mod mapped_region;
mod msi_store;
mod msix_store;
mod read_back;
mod windows;

pub use capabilities::{Capability, CapabilityIter, capabilities, extended_capability};
pub use ecam::{Ecam, EcamFunction};
pub use enumerate::enumerate;
pub use function::{Function, FunctionStore, find_store};
pub use isolation_groups::{Isolation, enable_acs, isolation_groups};
pub use mapped_region::MappedRegion;
pub use msi_store::MsiStore;
pub use msix_store::{MsixCapability, MsixRegions, MsixStore};
pub use windows::{Bar, BarWidth};

use alloc::collections::TryReserveError;
use core::fmt;
use msi_types::RequesterId;
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

/// The contexts in which a register may be accessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessContext {
    /// Accesses are allowed in any context, including hard-IRQ handlers. Accesses are
    /// memory-mapped, and do not take a lock that tasks hold with interrupts enabled.
    Any,
    /// Accesses are only allowed in tasks, because they use a mailbox, a hypercall, or a lock that
    /// tasks hold with interrupts enabled.
    Task,
}

/// One function's configuration space: 256 bytes, or 4096 on PCI Express. Accesses are aligned to
/// their width. Values are in CPU byte order, although registers are little-endian. Reads from a
/// removed function must return all ones. [`Ecam`] implements this trait for
/// memory-mapped configuration space.
pub trait ConfigSpace: Send + Sync {
    /// Reads 8 bits.
    fn read8(&self, offset: u16) -> u8;
    /// Reads 16 bits.
    fn read16(&self, offset: u16) -> u16;
    /// Reads 32 bits.
    fn read32(&self, offset: u16) -> u32;
    /// Writes 8 bits.
    fn write8(&self, offset: u16, value: u8);
    /// Writes 16 bits.
    fn write16(&self, offset: u16, value: u16);
    /// Writes 32 bits as a single store.
    fn write32(&self, offset: u16, value: u32);

    /// Returns the contexts in which registers may be accessed. MSI mask bits can only be used in
    /// hard-IRQ context if this is [`AccessContext::Any`].
    fn context(&self) -> AccessContext {
        AccessContext::Task
    }

    /// Returns the requester ID with which the function's messages reach the host bridge, if the
    /// bus driver knows it. The ID is the function's own or that of a bridge. Used to detect a
    /// device that was attached with another requester ID.
    fn requester(&self) -> Option<RequesterId> {
        None
    }

    /// Returns the address of a bridge upstream of the function that does not forward the
    /// function's messages, because its Bus Master Enable is 0. If there are several, returns the
    /// one nearest to the function. Returns `None` if the bus driver knows of no such bridge. The
    /// provided method always returns `None`.
    fn closed_bridge(&self) -> Option<RequesterId> {
        None
    }
}

/// An ECAM window that the kernel mapped as device memory ([`MappedRegion`]).
/// Values are in CPU byte order, although registers are little-endian.
pub trait EcamWindow: Send + Sync {
    /// Returns the window's length in bytes.
    fn length(&self) -> u64;
    /// Reads 8 bits at a byte offset below [`length`](Self::length).
    fn read8(&self, offset: u64) -> u8;
    /// Reads 16 bits at an aligned offset below [`length`](Self::length).
    fn read16(&self, offset: u64) -> u16;
    /// Reads 32 bits at an aligned offset below [`length`](Self::length).
    fn read32(&self, offset: u64) -> u32;
    /// Writes 8 bits at a byte offset below [`length`](Self::length).
    fn write8(&self, offset: u64, value: u8);
    /// Writes 16 bits at an aligned offset below [`length`](Self::length).
    fn write16(&self, offset: u64, value: u16);
    /// Writes 32 bits at an aligned offset below [`length`](Self::length), as a single store.
    fn write32(&self, offset: u64, value: u32);
}

/// A function's memory region (BAR) that the bus driver mapped. Accesses are 32 bits wide and
/// aligned. Implementations must perform them in program order and allow them in any context.
/// Values are in CPU byte order, although registers are little-endian.
/// [`MappedRegion`] implements this trait.
pub trait TableMemory: Send + Sync {
    /// Returns the region's length in bytes.
    fn length(&self) -> u64;
    /// Reads 32 bits at an aligned byte offset below [`length`](Self::length).
    fn read32(&self, offset: u64) -> u32;
    /// Writes 32 bits at an aligned byte offset below [`length`](Self::length).
    fn write32(&self, offset: u64, value: u32);
}
