//! What the driver needs of its platform: tables in memory that the SMMU reads and writes, and waits
//! with a timeout. Also what can go wrong.

use crate::event::StreamId;
use gic_driver::{Coherence, GicPlatform, Platform, Table, TableLayout, Wait};
use image_rt::platform::Kernel;
use thiserror::Error;

/// Reason why an SMMU cannot be used, or did not execute a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SmmuError {
    /// The SMMU's registers are not mapped.
    #[error("the SMMU's registers are not mapped")]
    NotMapped,
    /// The SMMU lacks a feature that the driver requires.
    #[error("the SMMU does not support {0}, which this driver requires")]
    Lacks(&'static str),
    /// Memory for one of the SMMU's tables could not be allocated.
    #[error("the platform has no memory for the SMMU's {0}")]
    NoMemory(&'static str),
    /// The SMMU did not respond in time.
    #[error("the SMMU did not respond to {0}")]
    Timeout(&'static str),
    /// The SMMU rejected a command with this `CMDQ_CONS.ERR`.
    #[error("the SMMU rejected a command with error {0:#x}")]
    BadCommand(u32),
    /// The stream exceeds the range of the SMMU.
    #[error("stream {0} exceeds the range of the SMMU")]
    StreamRange(StreamId),
}

/// Allocates zeroed memory that the SMMU reads and writes.
pub fn memory(bytes: u64, align: u64, what: &'static str) -> Result<Table, SmmuError> {
    let align = align.max(bytes.next_power_of_two());
    let mut layout = TableLayout::new(bytes, align);
    layout.address_bits = 44;
    Kernel.allocate_table(layout).ok_or(SmmuError::NoMemory(what))
}

/// Stores an entry at `offset`. The first word has the valid bit, so it is stored last.
pub fn store(table: &Table, offset: u64, words: &[u64]) {
    for (index, word) in words.iter().enumerate().rev() {
        if index == 0 {
            publish(table);
        }
        Kernel.store64(table, offset + 8 * index as u64, *word);
    }
    publish(table);
}

/// Loads the 64-bit word at `offset`, which must be a multiple of 8.
pub fn load(table: &Table, offset: u64) -> u64 {
    let byte = |index| Kernel.load8(table, offset + index);
    (0..8).rev().fold(0, |word, index| word << 8 | u64::from(byte(index)))
}

/// Makes stored entries visible to the SMMU. (Its reads are coherent with caches.)
fn publish(table: &Table) {
    Kernel.publish(table, 0..table.bytes, Coherence::Coherent);
}

/// Waits until `done` returns `true`. Fails when the platform gives up.
pub(crate) fn wait_for(
    what: &'static str,
    mut done: impl FnMut() -> bool,
) -> Result<(), SmmuError> {
    let mut turn = 0;
    while !done() {
        if Kernel.wait(turn) == Wait::GiveUp {
            return Err(SmmuError::Timeout(what));
        }
        turn += 1;
    }
    Ok(())
}

/// Length of both queues as a power of two, unless the SMMU supports only shorter queues.
const USUAL_BITS: u32 = 7;

/// A queue in memory.
pub(crate) struct Ring {
    pub(crate) table: Table,
    /// Number of bits of an index.
    pub(crate) bits: u32,
    /// Index of the entry that the driver writes or reads next.
    pub(crate) index: u32,
}

impl Ring {
    pub(crate) fn new(
        entry_bytes: u64,
        most_bits: u32,
        what: &'static str,
    ) -> Result<Self, SmmuError> {
        let bits = most_bits.min(USUAL_BITS);
        Ok(Self { table: memory(entry_bytes << bits, 32, what)?, bits, index: 0 })
    }

    pub(crate) fn address(&self) -> u64 {
        self.table.address
    }

    /// Returns the number of the next entry in memory.
    pub(crate) fn slot(&self) -> u64 {
        u64::from(self.index & ((1 << self.bits) - 1))
    }

    pub(crate) fn advance(&mut self) {
        self.index = (self.index + 1) & ((2 << self.bits) - 1);
    }
}
