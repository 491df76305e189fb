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

mod ecam;
mod enumerate;
mod mapped_region;
mod msi_store;
mod msix_store;
mod read_back;
mod windows;

pub use ecam::{Ecam, EcamFunction};
pub use enumerate::{
    Function, FunctionStore, Isolation, enable_acs, enumerate, find_store, isolation_groups,
};
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

/// Offset of the list pointer, in header types 0 and 1 and in CardBus bridges.
const POINTER: u16 = 0x34;
const POINTER_CARDBUS: u16 = 0x14;
/// Lowest possible capability offset, right after the standard header.
const FIRST: u16 = 0x40;
const END: u16 = 0x100;
/// End of the extended capabilities, which begin at [`END`].
const EXTENDED_END: u16 = 0x1000;
/// Maximum number of capabilities that fit in configuration space. A longer list must be circular.
const MOST: u8 = 48;

/// A list entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// The capability ID.
    pub id: u8,
    /// Offset in configuration space.
    pub offset: u16,
}

/// Iterates over a function's capabilities in list order. The iteration stops at a pointer outside
/// the capabilities' range, and after 48 entries in case the list is circular.
///
/// Context: task; may sleep.
pub fn capabilities(config: &dyn ConfigSpace) -> CapabilityIter<'_> {
    let present = config.read16(STATUS) & STATUS_CAPABILITIES != 0;
    let pointer = match config.read8(HEADER_TYPE) & !MULTI_FUNCTION {
        TYPE_CARDBUS => POINTER_CARDBUS,
        _ => POINTER,
    };
    let next = if present { config.read8(pointer) } else { 0 };
    CapabilityIter { config, next, left: MOST }
}

/// Iterator over a function's [`capabilities`].
pub struct CapabilityIter<'a> {
    config: &'a dyn ConfigSpace,
    next: u8,
    left: u8,
}

impl Iterator for CapabilityIter<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        let offset = u16::from(self.next & !3);
        if offset < FIRST {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let id = self.config.read8(offset);
        // A removed function reads as all ones.
        if id == 0xff {
            return None;
        }
        self.next = self.config.read8(offset + 1);
        Some(Capability { id, offset })
    }
}

msi_types::debug_by!(CapabilityIter<'_> as "CapabilityIter", |it| {next: it.next, left: it.left});

/// Returns the offset of the first extended capability with this ID. The function must be a PCI
/// Express function: others have no extended configuration space.
///
/// Context: task; may sleep.
pub fn extended_capability(config: &dyn ConfigSpace, id: u16) -> Option<u16> {
    let mut offset = END;
    // At most this many capabilities fit, so a circular list cannot trap us.
    for _ in (END..EXTENDED_END).step_by(4) {
        if config.read16(offset) == id {
            return Some(offset);
        }
        let next = config.read16(offset + 2) >> 4 & !3;
        offset = Some(next).filter(|next| *next >= END)?;
    }
    None
}

/// Returns the type of a PCI Express function's device or port (PCI Express Base §7.5.3.2), or
/// `None` for conventional PCI.
fn port_type(config: &dyn ConfigSpace) -> Option<u8> {
    let express = capabilities(config).find(|found| found.id == EXPRESS)?;
    Some(config.read8(express.offset + EXPRESS_FLAGS) >> 4)
}

/// Returns the offset of the first capability with this ID.
fn find(config: &dyn ConfigSpace, id: u8) -> Result<u16, PciError> {
    let found = capabilities(config).find(|capability| capability.id == id);
    found.map(|capability| capability.offset).ok_or(PciError::NoCapability { id })
}

/// Checks that a capability with `length` bytes fits at `offset`.
fn check_length(id: u8, offset: u16, length: u16) -> Result<(), PciError> {
    if length <= END.saturating_sub(offset) {
        Ok(())
    } else {
        Err(PciError::CapabilityTooLong { id, offset })
    }
}

const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
const COMMAND: u16 = 0x04;
/// Status register.
const STATUS: u16 = 0x06;
/// Bit of the Status register: the function has a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Revision ID (bits 7:0) and class code (bits 31:8).
const CLASS: u16 = 0x08;
const HEADER_TYPE: u16 = 0x0e;
/// The first base address register.
const BAR0: u16 = 0x10;

/// Bit of the Command register: the function decodes its I/O ports.
const COMMAND_IO: u16 = 1 << 0;
/// Bit of the Command register: the function decodes its memory regions.
const COMMAND_MEMORY: u16 = 1 << 1;
/// Bit of the Command register: the function may write to memory, and thus may send messages.
const COMMAND_MASTER: u16 = 1 << 2;

/// Bit of the header type: the device has several functions.
const MULTI_FUNCTION: u8 = 0x80;
const TYPE_ENDPOINT: u8 = 0;
const TYPE_BRIDGE: u8 = 1;
const TYPE_CARDBUS: u8 = 2;

// Bridge registers, type 1.
const PRIMARY_BUS: u16 = 0x18;
const SECONDARY_BUS: u16 = 0x19;
const SUBORDINATE_BUS: u16 = 0x1a;
const MEMORY: u16 = 0x20;
const PREFETCHABLE_BASE: u16 = 0x24;
const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;

/// PCI Express capability ID.
const EXPRESS: u8 = 0x10;
/// Offset of the PCI Express Capabilities register. Bits 7:4 are the port type (§7.5.3.2).
const EXPRESS_FLAGS: u16 = 0x02;
const PORT_ROOT: u8 = 4;
const PORT_DOWNSTREAM: u8 = 6;
/// Port type: PCI Express to conventional PCI bridge.
const PORT_TO_CONVENTIONAL: u8 = 7;
/// Port type: conventional PCI to PCI Express bridge.
const PORT_FROM_CONVENTIONAL: u8 = 8;
/// Port type: root complex event collector.
const PORT_EVENT_COLLECTOR: u8 = 10;
