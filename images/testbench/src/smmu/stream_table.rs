//! Stream table entries and context descriptors (IHI 0070, chapter 5): which address space a
//! device's accesses are of.

use super::{SmmuError, memory, store};
use alloc::collections::BTreeMap;
use core::fmt;
use gic_driver::Table;

/// A device's number at the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StreamId(pub(crate) u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// An address space's number in the SMMU's caches (ASID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SpaceId(pub(super) u16);

/// Streams of a second-level table: those of a PCI bus.
const SPLIT: u32 = 8;
const ENTRY_BYTES: u64 = 64;

/// A first-level descriptor's span: all 2^SPLIT entries.
const SPAN: u64 = SPLIT as u64 + 1;
/// A stream table entry: valid, first stage translates, second is left out.
const VALID: u64 = 1;
const STAGE_1: u64 = 0b101 << 1;
/// Its second word: contexts are read as inner shareable, write-back cacheable; accesses keep their
/// own shareability.
const CONTEXT_CACHED: u64 = 3 << 6 | 1 << 4 | 1 << 2;
const SHARED_AS_THEY_COME: u64 = 1 << 44;

/// 39 bits of address, pages of 4 KiB, tables inner shareable and write-back cacheable.
const LOWER_HALF: u64 = (64 - 39) | 1 << 8 | 1 << 10 | 3 << 12;
/// The upper half of addresses is not used.
const NO_UPPER_HALF: u64 = 1 << 30;
const CONTEXT_VALID: u64 = 1 << 31;
const PHYSICAL_44_BITS: u64 = 4 << 32;
const AARCH64: u64 = 1 << 41;
/// Faults are recorded, and end the access.
const RECORD_AND_ABORT: u64 = 1 << 45 | 1 << 46;
const OWN_SPACE: u64 = 1 << 47;
/// Attribute 0: normal memory, write-back cacheable; 1: device memory, nGnRE.
const ATTRIBUTES: u64 = 0x04ff;

/// Format of the table, as a register states it.
pub(super) struct Fmt {
    pub(super) bits: u32,
    pub(super) split: u32,
}

/// The table, of two levels: a second-level table is made when the first stream in it is.
pub(super) struct StreamTable {
    bits: u32,
    top: Table,
    leaves: BTreeMap<u32, Table>,
}

/// A stream's context: its translation table, and how it is read.
pub(super) struct Context {
    table: Table,
    space: SpaceId,
}

impl Context {
    /// For an address space whose tables begin at `root`.
    pub(super) fn new(stream: StreamId, root: u64) -> Result<Self, SmmuError> {
        let space = SpaceId(stream.0 as u16);
        let table = memory(ENTRY_BYTES, ENTRY_BYTES, "contexts")?;
        let first = LOWER_HALF
            | NO_UPPER_HALF
            | CONTEXT_VALID
            | PHYSICAL_44_BITS
            | AARCH64
            | RECORD_AND_ABORT
            | OWN_SPACE
            | u64::from(space.0) << 48;
        store(&table, 0, &[first, root, 0, ATTRIBUTES]);
        Ok(Self { table, space })
    }

    pub(super) fn space(&self) -> SpaceId {
        self.space
    }
}

impl StreamTable {
    /// An empty one for so many bits of streams.
    pub(super) fn new(bits: u32) -> Result<Self, SmmuError> {
        // Address spaces are numbered as their streams, in 16 bits.
        let bits = bits.clamp(SPLIT, 16);
        let top = memory(8 << (bits - SPLIT), ENTRY_BYTES, "streams")?;
        Ok(Self { bits, top, leaves: BTreeMap::new() })
    }

    /// A stream's accesses are of this context.
    pub(super) fn set(&mut self, stream: StreamId, context: &Context) -> Result<(), SmmuError> {
        if stream.0 >> self.bits != 0 {
            return Err(SmmuError::StreamRange(stream));
        }
        let entry =
            [VALID | STAGE_1 | context.table.address, CONTEXT_CACHED | SHARED_AS_THEY_COME, 0, 0];
        store(self.leaf(stream)?, place(stream), &entry);
        Ok(())
    }

    /// A stream's accesses are refused.
    pub(super) fn clear(&mut self, stream: StreamId) {
        if let Some(leaf) = self.leaves.get(&(stream.0 >> SPLIT)) {
            store(leaf, place(stream), &[0]);
        }
    }

    pub(super) fn address(&self) -> u64 {
        self.top.address
    }

    pub(super) fn format(&self) -> Fmt {
        Fmt { bits: self.bits, split: SPLIT }
    }

    fn leaf(&mut self, stream: StreamId) -> Result<&Table, SmmuError> {
        let index = stream.0 >> SPLIT;
        if !self.leaves.contains_key(&index) {
            let leaf = memory(ENTRY_BYTES << SPLIT, ENTRY_BYTES, "streams")?;
            store(&self.top, 8 * u64::from(index), &[leaf.address | SPAN]);
            self.leaves.insert(index, leaf);
        }
        self.leaves.get(&index).ok_or(SmmuError::NoMemory("streams"))
    }
}

fn place(stream: StreamId) -> u64 {
    ENTRY_BYTES * u64::from(stream.0 & ((1 << SPLIT) - 1))
}
