//! The table in memory, the value of the register that holds its address, the allocation of
//! entries, and their contents: targets, and the requesters that may use them (VT-d specification,
//! chapter 9).

use crate::message::{ApicId, ApicVector, DeliveryMode, DestinationMode, Redirection};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use bitfield_struct::bitfield;
use core::num::NonZeroU16;
use doorbell_fallible::try_collect;
use msi_types::{RequesterId, Trigger};

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

/// Format of APIC IDs in entries (EIME of the table address register).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ApicMode {
    /// 8-bit IDs.
    Xapic,
    /// 32-bit IDs. Messages in the compatibility format are always blocked.
    X2apic,
}

impl ApicMode {
    /// Returns `true` if a physical destination with this ID reaches exactly one APIC.
    pub const fn reaches(self, id: ApicId) -> bool {
        match self {
            Self::Xapic => id.get() < 0xff,
            Self::X2apic => id.get() != u32::MAX,
        }
    }

    pub(super) const fn lay_out(self, id: ApicId) -> u32 {
        match self {
            Self::Xapic => (id.get() & 0xff) << 8,
            Self::X2apic => id.get(),
        }
    }

    pub(super) const fn read(self, destination: u32) -> ApicId {
        ApicId::new(match self {
            Self::Xapic => (destination >> 8) & 0xff,
            Self::X2apic => destination,
        })
    }
}

/// Bits 63:0. This word contains all fields that a move changes, so a move is a single store.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IrteLow {
    /// P: the entry is present.
    pub present: bool,
    /// FPD: faults of this entry are not recorded.
    pub fault_processing_disable: bool,
    /// DM: the destination is logical.
    pub logical: bool,
    /// RH: the hardware may choose among the destinations.
    pub redirection_hint: bool,
    /// TM: level-triggered instead of edge-triggered.
    pub level_triggered: bool,
    /// DLM: delivery mode.
    #[bits(3)]
    pub delivery_mode: u8,
    /// AVAIL: available to software.
    #[bits(4)]
    pub available: u8,
    #[bits(3)]
    reserved_14_12: u8,
    /// IM: the entry posts interrupts to a virtual CPU, and has a different layout.
    pub posted: bool,
    /// V: vector.
    pub vector: u8,
    reserved_31_24: u8,
    /// DST: destination, in the format of [`ApicMode`].
    pub destination: u32,
}

/// Bits 127:64.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IrteHigh {
    /// SID: source ID.
    pub source_id: u16,
    /// SQ: selects the function number bits of the source that are compared.
    #[bits(2)]
    pub source_qualifier: u8,
    /// SVT: selects how the source is checked.
    #[bits(2)]
    pub source_validation: u8,
    #[bits(44)]
    reserved: u64,
}

/// An entry in its memory format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Irte {
    /// Bits 63:0.
    pub low: IrteLow,
    /// Bits 127:64.
    pub high: IrteHigh,
}

/// Target of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IrteTarget {
    /// Destination APIC.
    pub destination: ApicId,
    /// Meaning of the destination.
    pub mode: DestinationMode,
    /// Choice among destinations.
    pub redirection: Redirection,
    /// Effect at the destination.
    pub delivery: DeliveryMode,
    /// Trigger.
    pub trigger: Trigger,
}

impl IrteTarget {
    /// Creates an edge-triggered target that makes `vector` pending at one APIC.
    pub const fn fixed(destination: ApicId, vector: ApicVector) -> Self {
        Self {
            destination,
            mode: DestinationMode::Physical,
            redirection: Redirection::Directed,
            delivery: DeliveryMode::Fixed(vector),
            trigger: Trigger::Edge,
        }
    }

    pub(super) fn encode(&self, mode: ApicMode) -> IrteLow {
        IrteLow::new()
            .with_present(true)
            .with_logical(self.mode == DestinationMode::Logical)
            .with_redirection_hint(self.redirection == Redirection::Hint)
            .with_level_triggered(self.trigger == Trigger::Level)
            .with_delivery_mode(self.delivery.mode())
            .with_vector(self.delivery.vector_number())
            .with_destination(mode.lay_out(self.destination))
    }

    /// Decodes the low word. Returns `None` if reserved bits are set, if the vector or the delivery
    /// mode is illegal, or if interrupts are posted.
    pub(super) fn decode(low: IrteLow, mode: ApicMode) -> Option<Self> {
        let target = Self {
            destination: mode.read(low.destination()),
            mode: if low.logical() { DestinationMode::Logical } else { DestinationMode::Physical },
            redirection: if low.redirection_hint() {
                Redirection::Hint
            } else {
                Redirection::Directed
            },
            delivery: DeliveryMode::from_fields(low.delivery_mode(), low.vector()).ok()?,
            trigger: if low.level_triggered() { Trigger::Level } else { Trigger::Edge },
        };
        // Encoding writes every reserved bit as 0.
        let ignored = low.with_fault_processing_disable(false).with_available(0);
        (target.encode(mode) == ignored).then_some(target)
    }
}

/// An entry whose destination is not yet encoded for an APIC mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Filled {
    pub(super) target: IrteTarget,
    pub(super) source: Source,
}

impl Irte {
    pub(super) const fn present(target: IrteTarget, source: Source) -> Filled {
        Filled { target, source }
    }

    /// Returns the requesters that may use the entry, or `None` if the entry's source fields have
    /// reserved values.
    pub fn source(&self) -> Option<Source> {
        let check =
            SourceCheck::from_fields(self.high.source_validation(), self.high.source_qualifier())?;
        (self.high.reserved() == 0).then_some(Source { id: self.high.source_id(), check })
    }

    pub(super) fn high_for(source: Source) -> IrteHigh {
        let (validation, qualifier) = source.check.fields();
        IrteHigh::new()
            .with_source_id(source.id)
            .with_source_qualifier(qualifier)
            .with_source_validation(validation)
    }
}

/// Method of comparing a requester with an entry's source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceCheck {
    /// Requesters are not compared, so any of them may use the entry. Provides no isolation.
    None,
    /// All 16 bits must be equal.
    Exact,
    /// All bits except bit 2 must be equal, which admits the two functions of a phantom pair.
    IgnoreBit2,
    /// All bits except bits 2:1 must be equal.
    IgnoreBits2To1,
    /// All bits except bits 2:0 must be equal, which admits all functions of the device.
    IgnoreFunction,
    /// The bus number must be in the range from bits 15:8 to bits 7:0 of the source, which admits
    /// the devices behind a bridge.
    BusRange,
}

impl SourceCheck {
    /// Returns the fields SVT and SQ.
    pub(super) const fn fields(self) -> (u8, u8) {
        match self {
            Self::None => (0, 0),
            Self::Exact => (1, 0),
            Self::IgnoreBit2 => (1, 1),
            Self::IgnoreBits2To1 => (1, 2),
            Self::IgnoreFunction => (1, 3),
            Self::BusRange => (2, 0),
        }
    }

    /// Decodes the fields SVT and SQ. Returns `None` for the reserved value of SVT.
    pub(super) const fn from_fields(svt: u8, sq: u8) -> Option<Self> {
        match (svt, sq) {
            (0, _) => Some(Self::None),
            (1, 0) => Some(Self::Exact),
            (1, 1) => Some(Self::IgnoreBit2),
            (1, 2) => Some(Self::IgnoreBits2To1),
            (1, 3) => Some(Self::IgnoreFunction),
            (2, _) => Some(Self::BusRange),
            _ => None,
        }
    }
}

/// Requesters that may use an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// ID that requesters are compared with.
    pub id: u16,
    /// Method of comparison.
    pub check: SourceCheck,
}

impl Source {
    /// Creates the source of a PCI function that sends with its own requester ID. Returns `None`
    /// for an ID beyond 16 bits.
    pub fn pci(requester: RequesterId) -> Option<Self> {
        Some(Self { id: u16::try_from(requester.get()).ok()?, check: SourceCheck::Exact })
    }

    /// Returns `true` if this requester may use the entry.
    pub fn admits(self, requester: u16) -> bool {
        let differing = self.id ^ requester;
        let [last, first] = self.id.to_le_bytes();
        let [_, bus] = requester.to_le_bytes();
        match self.check {
            SourceCheck::None => true,
            SourceCheck::Exact => differing == 0,
            SourceCheck::IgnoreBit2 => differing & !0b100 == 0,
            SourceCheck::IgnoreBits2To1 => differing & !0b110 == 0,
            SourceCheck::IgnoreFunction => differing & !0b111 == 0,
            SourceCheck::BusRange => (first..=last).contains(&bus),
        }
    }
}
