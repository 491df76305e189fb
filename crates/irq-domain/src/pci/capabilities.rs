//! A function's configuration header registers (PCI Express Base §7.5.1) and its capability list.

use super::{ConfigSpace, PciError};

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
pub(super) fn port_type(config: &dyn ConfigSpace) -> Option<u8> {
    let express = capabilities(config).find(|found| found.id == EXPRESS)?;
    Some(config.read8(express.offset + EXPRESS_FLAGS) >> 4)
}

/// Returns the offset of the first capability with this ID.
pub(super) fn find(config: &dyn ConfigSpace, id: u8) -> Result<u16, PciError> {
    let found = capabilities(config).find(|capability| capability.id == id);
    found.map(|capability| capability.offset).ok_or(PciError::NoCapability { id })
}

/// Checks that a capability with `length` bytes fits at `offset`.
pub(super) fn check_length(id: u8, offset: u16, length: u16) -> Result<(), PciError> {
    if length <= END.saturating_sub(offset) {
        Ok(())
    } else {
        Err(PciError::CapabilityTooLong { id, offset })
    }
}

pub(super) const VENDOR: u16 = 0x00;
pub(super) const DEVICE: u16 = 0x02;
pub(super) const COMMAND: u16 = 0x04;
/// Status register.
pub(super) const STATUS: u16 = 0x06;
/// Bit of the Status register: the function has a capability list.
pub(super) const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Revision ID (bits 7:0) and class code (bits 31:8).
pub(super) const CLASS: u16 = 0x08;
pub(super) const HEADER_TYPE: u16 = 0x0e;
/// The first base address register.
pub(super) const BAR0: u16 = 0x10;

/// Bit of the Command register: the function decodes its I/O ports.
pub(super) const COMMAND_IO: u16 = 1 << 0;
/// Bit of the Command register: the function decodes its memory regions.
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
/// Bit of the Command register: the function may write to memory, and thus may send messages.
pub(super) const COMMAND_MASTER: u16 = 1 << 2;

/// Bit of the header type: the device has several functions.
pub(super) const MULTI_FUNCTION: u8 = 0x80;
pub(super) const TYPE_ENDPOINT: u8 = 0;
pub(super) const TYPE_BRIDGE: u8 = 1;
pub(super) const TYPE_CARDBUS: u8 = 2;

// Bridge registers, type 1.
pub(super) const PRIMARY_BUS: u16 = 0x18;
pub(super) const SECONDARY_BUS: u16 = 0x19;
pub(super) const SUBORDINATE_BUS: u16 = 0x1a;
pub(super) const MEMORY: u16 = 0x20;
pub(super) const PREFETCHABLE: u16 = 0x24;
pub(super) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
pub(super) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;

/// PCI Express capability ID.
pub(super) const EXPRESS: u8 = 0x10;
/// Offset of the PCI Express Capabilities register. Bits 7:4 are the port type (§7.5.3.2).
pub(super) const EXPRESS_FLAGS: u16 = 0x02;
pub(super) const PORT_ROOT: u8 = 4;
pub(super) const PORT_DOWNSTREAM: u8 = 6;
/// Port type: PCI Express to conventional PCI bridge.
pub(super) const PORT_TO_CONVENTIONAL: u8 = 7;
/// Port type: conventional PCI to PCI Express bridge.
pub(super) const PORT_FROM_CONVENTIONAL: u8 = 8;
/// Port type: root complex event collector.
pub(super) const PORT_EVENT_COLLECTOR: u8 = 10;
