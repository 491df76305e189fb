//! Stream table entries and context descriptors (IHI 0070, chapter 5), which assign address spaces
//! to devices.

use crate::event::{SpaceId, StreamId};
use crate::platform::{SmmuError, load, memory, store};
use gic_driver::Table;

const ENTRY_BYTES: u64 = 64;

/// First word of a stream table entry: the entry is valid. Unless it enables a stage, accesses are
/// aborted without an event.
const VALID: u64 = 1;
const STAGE_1: u64 = 0b101 << 1;
const STAGE_2: u64 = 0b110 << 1;
const EITHER_STAGE: u64 = 0b011 << 1;
/// Second word: contexts are read as inner shareable, write-back cacheable memory; accesses keep
/// their own shareability.
const CONTEXT_CACHED: u64 = 3 << 6 | 1 << 4 | 1 << 2;
const SHARED_AS_THEY_COME: u64 = 1 << 44;
/// Third word: fields of `VTCR_EL2` from bit 32 on, AArch64 tables, recorded faults.
const VTCR_FIELDS: u64 = 0x7_ffff;
const STAGE_2_AARCH64: u64 = 1 << 51;
const STAGE_2_RECORDS: u64 = 1 << 58;

/// 39-bit addresses, 4 KiB pages, inner shareable and write-back cacheable tables.
const LOWER_HALF: u64 = (64 - 39) | 1 << 8 | 1 << 10 | 3 << 12;
/// The upper half of addresses is disabled.
const NO_UPPER_HALF: u64 = 1 << 30;
const CONTEXT_VALID: u64 = 1 << 31;
const PHYSICAL_44_BITS: u64 = 4 << 32;
const AARCH64: u64 = 1 << 41;
/// Faults are recorded, and abort the access.
const RECORD_AND_ABORT: u64 = 1 << 45 | 1 << 46;
const OWN_SPACE: u64 = 1 << 47;
/// Attribute 0 is normal write-back cacheable memory, attribute 1 is device memory (nGnRE).
const ATTRIBUTES: u64 = 0x04ff;

/// The linear stream table, which every SMMU supports (IHI 0070, 3.3.1.1).
pub(crate) struct StreamTable {
    pub(crate) bits: u32,
    table: Table,
}

/// A stage 1 context: a translation table and its format.
#[derive(Debug)]
pub struct Context {
    table: Table,
}

/// Translation of a stream's accesses.
#[derive(Debug)]
pub enum Translation {
    /// Stage 1 translation only.
    Stage1(Context),
    /// Stage 2 translation only, by tables in the format that CPUs use.
    Stage2 {
        /// Number of the address space in the SMMU's caches (VMID).
        vmid: u8,
        /// Format of the tables, as in `VTCR_EL2` (DDI 0487).
        vtcr: u64,
        /// Address of the first table.
        root: u64,
    },
    /// No translation: accesses are aborted without an event.
    Refused,
}

impl Context {
    /// Creates a context for a 39-bit address space whose tables begin at `root`, with 4 KiB pages
    /// and three levels. Attribute 0 is normal memory, attribute 1 is device memory.
    pub fn new(space: SpaceId, root: u64) -> Result<Self, SmmuError> {
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
        Ok(Self { table })
    }
}

impl StreamTable {
    /// Creates an empty table for StreamIDs with this number of bits.
    pub(crate) fn new(bits: u32) -> Result<Self, SmmuError> {
        // An address space has its stream's number, so limit streams to 16 bits.
        let bits = bits.min(16);
        Ok(Self { bits, table: memory(ENTRY_BYTES << bits, ENTRY_BYTES, "streams")? })
    }

    /// Sets the translation of a stream. Unless the new translation aborts all accesses, the
    /// previous one must do so.
    pub(crate) fn set(
        &mut self,
        stream: StreamId,
        translation: &Translation,
    ) -> Result<(), SmmuError> {
        let place = self.place(stream).ok_or(SmmuError::StreamRange(stream))?;
        match *translation {
            Translation::Stage1(Context { ref table }) => {
                let contexts = CONTEXT_CACHED | SHARED_AS_THEY_COME;
                store(&self.table, place, &[VALID | STAGE_1 | table.address, contexts, 0, 0]);
            }
            Translation::Stage2 { vmid, vtcr, root } => {
                let format = (vtcr & VTCR_FIELDS) << 32 | STAGE_2_AARCH64 | STAGE_2_RECORDS;
                let tables = u64::from(vmid) | format;
                let words = [VALID | STAGE_2, SHARED_AS_THEY_COME, tables, root];
                store(&self.table, place, &words);
            }
            Translation::Refused => store(&self.table, place, &[VALID]),
        }
        Ok(())
    }

    /// Returns `true` if the stream's entry makes the SMMU translate the stream's accesses.
    pub(crate) fn translates(&self, stream: StreamId) -> bool {
        self.place(stream).is_some_and(|place| {
            let entry = load(&self.table, place);
            entry & VALID != 0 && entry & EITHER_STAGE != 0
        })
    }

    /// Makes the SMMU abort a stream's accesses and report an event for each.
    pub(crate) fn clear(&mut self, stream: StreamId) {
        if let Some(place) = self.place(stream) {
            store(&self.table, place, &[0]);
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.table.address
    }

    /// Returns the offset of a stream's entry, or `None` if the stream exceeds the table.
    fn place(&self, StreamId(stream): StreamId) -> Option<u64> {
        (stream >> self.bits == 0).then_some(ENTRY_BYTES * u64::from(stream))
    }
}
