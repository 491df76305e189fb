//! The table in memory, the value of the register that holds its address, and the allocation of
//! entries.

use super::irte::{ApicMode, Filled, Irte, IrteHigh, IrteLow, IrteTarget, Source};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_fallible::try_collect;

/// A table's memory: 64-bit words, indexed from its base and initially zero. Each word must be read
/// and written in a single access.
pub trait RemapMemory: Send + Sync {
    /// Reads a word.
    ///
    /// Context: any.
    fn read(&self, word: u32) -> u64;
    /// Writes a word after all earlier writes. The unit must see the value on return, which
    /// requires a barrier, or a cache clean if the unit does not snoop caches.
    ///
    /// Context: any.
    fn write(&self, word: u32, value: u64);
}

/// Number of entries in a table: a power of two from 2 to 65536.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableSize(u8);

impl TableSize {
    /// Largest size: 65536 entries, 1 MiB.
    pub const MAX: Self = Self(16);

    /// Creates a size of `2^log2` entries. Returns `None` unless `log2` is 1 to 16.
    pub const fn from_log2(log2: u8) -> Option<Self> {
        if log2 >= 1 && log2 <= 16 { Some(Self(log2)) } else { None }
    }

    /// Returns the number of entries.
    pub const fn entries(self) -> u32 {
        1 << self.0
    }

    /// Returns the size in bytes. The memory must be aligned to it, and at least to 4 KiB.
    pub const fn bytes(self) -> u64 {
        self.entries() as u64 * 16
    }
}

/// Treatment of messages in the compatibility format (CFIS of the status register).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CompatibilityFormat {
    /// Messages in the compatibility format are blocked.
    Blocked,
    /// Messages in the compatibility format are passed to the local APICs, without isolation.
    Passed,
}

/// Configuration of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RemapTableConfig {
    /// Number of entries.
    pub(crate) size: TableSize,
    /// Format of the entries' APIC IDs.
    pub(crate) mode: ApicMode,
    pub(crate) compatibility: CompatibilityFormat,
}

impl RemapTableConfig {
    /// Creates a configuration that blocks messages in the compatibility format.
    pub const fn new(size: TableSize, mode: ApicMode) -> Self {
        Self { size, mode, compatibility: CompatibilityFormat::Blocked }
    }

    msi_types::setters! {
        /// Sets the treatment of messages in the compatibility format. [`ApicMode::X2apic`] always
        /// blocks them.
        with_compatibility: compatibility: CompatibilityFormat,
    }
}

/// A remapping table in memory. [`translate`](Self::translate) uses its entries to translate
/// messages.
pub struct RemapTable<M> {
    pub(super) config: RemapTableConfig,
    memory: M,
}

impl<M: RemapMemory> RemapTable<M> {
    /// Creates a table in `memory`, which must be [`TableSize::bytes`] long.
    pub const fn new(config: RemapTableConfig, memory: M) -> Self {
        Self { config, memory }
    }

    /// Returns the memory.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Returns the number of entries.
    pub const fn size(&self) -> TableSize {
        self.config.size
    }

    /// Returns the format of APIC IDs in entries.
    pub const fn mode(&self) -> ApicMode {
        self.config.mode
    }

    /// Returns `true` if the unit blocks messages in the compatibility format.
    pub fn blocks_compatibility_format(&self) -> bool {
        self.config.mode == ApicMode::X2apic
            || self.config.compatibility == CompatibilityFormat::Blocked
    }

    /// Returns the value of the interrupt remapping table address register for a table at physical
    /// address `base`, which must be a multiple of [`TableSize::bytes`] and of 4 KiB.
    pub fn address_register(&self, base: u64) -> u64 {
        let extended = u64::from(self.config.mode == ApicMode::X2apic) << 11;
        base & !0xfff | extended | u64::from(self.config.size.0 - 1)
    }

    /// Returns an entry in its memory format, or `None` if the index is past the end of the table.
    ///
    /// Context: any.
    pub fn entry(&self, index: u32) -> Option<Irte> {
        let (low, high) = self.words(index)?;
        Some(Irte {
            low: IrteLow::from(self.memory.read(low)),
            high: IrteHigh::from(self.memory.read(high)),
        })
    }

    /// Makes an absent entry present. Writes the entry's source first.
    pub(super) fn set(&self, index: u16, entry: Filled) {
        if let Some((low, high)) = self.words(index.into()) {
            self.memory.write(high, Irte::high_for(entry.source).into());
            self.memory.write(low, entry.target.encode(self.config.mode).into());
        }
    }

    /// Changes the target of a present entry in a single store.
    pub(super) fn retarget(&self, index: u16, target: IrteTarget, source: Source) {
        debug_assert_eq!(self.entry(index.into()).and_then(|entry| entry.source()), Some(source));
        if let Some((low, _)) = self.words(index.into()) {
            self.memory.write(low, target.encode(self.config.mode).into());
        }
    }

    pub(super) fn clear(&self, index: u16) {
        if let Some((low, high)) = self.words(index.into()) {
            self.memory.write(low, 0);
            self.memory.write(high, 0);
        }
    }

    fn words(&self, index: u32) -> Option<(u32, u32)> {
        (index < self.config.size.entries()).then_some((index * 2, index * 2 + 1))
    }
}

msi_types::debug_by!([M] RemapTable<M> as "RemapTable", |it| {config: it.config});

/// Allocator for a table's entries. The index of a block's first entry is a multiple of the block's
/// size rounded up to a power of two, so that one invalidation covers the block.
#[derive(Debug)]
pub(super) struct Handles {
    /// One bit per entry, set while the entry is in use.
    used: Vec<u64>,
    count: u32,
}

impl Handles {
    pub(super) fn new(size: TableSize) -> Result<Self, TryReserveError> {
        let words = size.entries().div_ceil(64);
        Ok(Self { used: try_collect((0..words).map(|_| 0))?, count: size.entries() })
    }

    /// Allocates `count` consecutive entries, and returns the first.
    pub(super) fn allocate(&mut self, count: NonZeroU16) -> Option<u16> {
        let count = u32::from(count.get());
        let span = usize::try_from(count.next_power_of_two()).ok()?;
        let is_free = |first: &u32| {
            *first + count <= self.count && (*first..first + count).all(|e| !self.is_used(e))
        };
        let first = (0..self.count).step_by(span).find(is_free)?;
        (first..first + count).for_each(|entry| self.set(entry, true));
        u16::try_from(first).ok()
    }

    pub(super) fn free(&mut self, first: u16, count: NonZeroU16) {
        let first = u32::from(first);
        (first..first + u32::from(count.get())).for_each(|entry| self.set(entry, false));
    }

    pub(super) fn used(&self) -> u32 {
        self.used.iter().map(|word| word.count_ones()).sum()
    }

    fn is_used(&self, entry: u32) -> bool {
        let (word, bit) = split(entry);
        self.used.get(word).is_none_or(|word| word & bit != 0)
    }

    fn set(&mut self, entry: u32, used: bool) {
        let (word, bit) = split(entry);
        if let Some(word) = self.used.get_mut(word) {
            *word = if used { *word | bit } else { *word & !bit };
        }
    }
}

/// Returns the index of the word that contains the entry's bit, and the bit's mask.
fn split(entry: u32) -> (usize, u64) {
    ((entry / 64) as usize, 1 << (entry % 64))
}
