//! Tables in memory that the SMMU reads and writes.

use crate::error::SmmuError;
use gic_driver::{Coherence, GicPlatform, Table, TableLayout};
use image_rt::platform::Kernel;

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
