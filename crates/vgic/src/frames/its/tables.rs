//! Tables that the guest provides for the ITS (`GITS_BASERn`, IHI 0069 §5.2).
//!
//! We keep mappings in host memory. The guest's tables only determine which identifiers are valid:
//! an identifier beyond the end of the table, or under an invalid first-level entry, is out of
//! range. As in KVM, table entries are written only when the state is saved.

use crate::config::{Coherence, ItsConfig, PageSizes, TableLevels};
use crate::monitor::events::{FaultDetail, FaultReason};
use crate::monitor::{GuestMemory, MemoryFault};
use gic_arch::Shareability;
use gic_arch::gits::{Baser, PageSize, TableKind};
use gic_arch::its::Level1Entry;

/// Size in bytes of an entry in the device or collection table.
const ENTRY_BYTES: u8 = 8;
const LEVEL1_BYTES: u64 = 8;

/// The implemented `GITS_BASERn` registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TableRegisters {
    pub(super) devices: Baser,
    pub(super) collections: Baser,
}

impl TableRegisters {
    /// Returns the reset state, in which no table is valid.
    pub(super) const fn new(config: &ItsConfig) -> Self {
        let collections = match config.collection_table {
            Some(_) => fixed(Baser::new(), config, TableKind::Collections),
            None => Baser::new(),
        };
        Self { devices: fixed(Baser::new(), config, TableKind::Devices), collections }
    }

    /// Returns `GITS_BASER<index>`.
    pub(super) const fn get(&self, index: u32) -> Baser {
        match index {
            0 => self.devices,
            1 => self.collections,
            _ => Baser::new(),
        }
    }

    /// Returns both tables, in the order of their registers.
    pub(super) const fn all(&self) -> [Baser; 2] {
        [self.devices, self.collections]
    }

    /// Returns the value that a register holds after the guest writes `written`.
    pub(super) const fn accepted(config: &ItsConfig, index: u32, written: Baser) -> Baser {
        match (index, config.collection_table) {
            (0, _) => fixed(levels(written, config.device_table), config, TableKind::Devices),
            (1, Some(allowed)) => fixed(levels(written, allowed), config, TableKind::Collections),
            _ => Baser::new(),
        }
    }
}

impl ItsConfig {
    /// Returns the value that `GITS_BASER<index>` holds after the guest writes `written`.
    pub const fn accepted_baser(&self, index: u32, written: Baser) -> Baser {
        TableRegisters::accepted(self, index, written)
    }
}

const fn levels(written: Baser, allowed: TableLevels) -> Baser {
    written.with_indirect(written.indirect() && matches!(allowed, TableLevels::FlatOrTwo))
}

/// Returns `written` with the read-only fields filled in.
const fn fixed(written: Baser, config: &ItsConfig, kind: TableKind) -> Baser {
    let sized = match config.page_sizes {
        PageSizes::Any => written,
        PageSizes::Only(size) => written.with_page_size(size),
    };
    let shared = match config.coherence {
        Coherence::Coherent => sized,
        Coherence::NonCoherent => sized.with_shareability(Shareability::Non),
    };
    shared.with_kind(kind).with_entry_bytes_minus_one(ENTRY_BYTES - 1)
}

/// Returns the number of identifiers for which a table has room. A two-level table is assumed to
/// have all its second-level pages.
pub(super) fn capacity(table: Baser) -> u64 {
    let entry_bytes = u64::from(table.entry_bytes());
    match (table.valid(), table.indirect()) {
        (false, _) => 0,
        (true, false) => table.bytes() / entry_bytes,
        (true, true) => table.bytes() / LEVEL1_BYTES * (table.page_size().bytes() / entry_bytes),
    }
}

/// Returns `true` if the guest has provided a table entry for this identifier. First-level entries
/// are read every time, because the guest may make an entry valid without issuing a command.
pub(super) fn covers(table: Baser, id: u32, memory: &dyn GuestMemory) -> bool {
    if !table.valid() {
        return false;
    }
    let entry_bytes = u64::from(table.entry_bytes());
    if !table.indirect() {
        return u64::from(id) < table.bytes() / entry_bytes;
    }
    let index = u64::from(id) / (table.page_size().bytes() / entry_bytes);
    if index >= table.bytes() / LEVEL1_BYTES {
        return false;
    }
    memory
        .read_u64(table.address() + index * LEVEL1_BYTES)
        .is_ok_and(|entry| Level1Entry::from_bits(entry).valid())
}

/// Size of an entry in an interrupt translation table (`GITS_TYPER.ITT_entry_size`).
pub(super) const ITT_ENTRY_BYTES: u64 = 8;

/// Checks that the first and the last byte of an interrupt translation table are in memory.
pub(super) fn check_translation_table(
    itt: u64,
    event_bits: u8,
    memory: &dyn GuestMemory,
) -> Result<(), MemoryFault> {
    let last = itt.saturating_add((ITT_ENTRY_BYTES << event_bits.min(32)) - 1);
    [itt, last].iter().try_for_each(|byte| memory.read(*byte, &mut [0]))
}

/// Checks that a table is aligned and that all its pages are in memory. Reads the first word of
/// every page (at most 256 of them), and the last word of the table.
pub(super) fn check(
    table: Baser,
    memory: &dyn GuestMemory,
) -> Result<(), (FaultReason, FaultDetail)> {
    if !table.valid() {
        return Ok(());
    }
    let (first, bytes) = (table.address(), table.bytes());
    let pages = (first..).step_by(usize::try_from(table.page_size().bytes()).unwrap_or(usize::MAX));
    let words = pages.take(usize::from(table.pages_minus_one()) + 1).chain([first + bytes - 8]);
    let readable = words.map(|word| memory.read_u64(word)).find_map(Result::err);
    let low = table.address_code() << 12 & 0xf000;
    match (table.page_size(), readable) {
        (PageSize::Size16K, _) if low & 0x3000 != 0 => unaligned(table),
        (PageSize::Size64K | PageSize::Reserved, Some(_)) if low != 0 => unaligned(table),
        (_, Some(fault)) => Err((FaultReason::ItsTable, FaultDetail::Memory(fault.address))),
        (_, None) => Ok(()),
    }
}

const fn unaligned(table: Baser) -> Result<(), (FaultReason, FaultDetail)> {
    Err((FaultReason::UnalignedItsTable, FaultDetail::Value(table.into_bits())))
}
