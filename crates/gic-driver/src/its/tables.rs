//! An ITS's mapped frames, and its in-memory tables, `GITS_BASER<n>` (IHI 0069 §5.2): the device
//! table and the collection table, flat or with two levels.
//!
//! The driver detects the page sizes, levels and shareabilities that a register supports by writing
//! and reading back. The pages of a second level are allocated when identifiers in their range are
//! first used. Pages are never freed, because no command invalidates a cached first level; their
//! number is limited by the number of identifier bits.
//!
//! Waits for the command queue are bounded. A task waits for as long as the ITS makes progress;
//! callers in other contexts wait no longer than the platform's bound in total.

use super::error::ProbeError;
use crate::mmio::{Mmio, MmioExt};
use crate::platform::{
    ADDRESS_BITS, Coherence, GicPlatform, NoTable, PhysicalRegion, Table, TableLayout, TimedOut,
    Wait, allocate_table, wait_until,
};
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::SortedMap;
use gic_arch::gits::{self, Baser, PageSize, TableKind};
use gic_arch::its::Level1Entry;
use gic_arch::{ArchRevision, Cacheability, OuterCacheability, Reg, Shareability, id};
use msi_types::explain::{Obstacle, TableRegister};

/// Limits on the addresses of ITS memory, in addition to the width of the register or command field
/// that holds the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableConstraints {
    /// The ITS's NUMA node.
    pub(crate) node: Option<u32>,
    /// Physical address bits driven by the ITS.
    pub(crate) address_bits: u8,
}

impl TableConstraints {
    /// Allocates `bytes` of table memory at an address that fits in `address_bits` bits.
    ///
    /// Context: task; may sleep.
    pub(crate) fn allocate<P: GicPlatform>(
        self,
        platform: &P,
        bytes: u64,
        align: u64,
        address_bits: u8,
    ) -> Result<Table, NoTable> {
        let address_bits = self.address_bits.min(address_bits);
        let node = self.node;
        allocate_table(platform, TableLayout { bytes, align, address_bits, node })
    }
}

/// Maximum number of pages in a table, because the register's size field has 8 bits.
const MAX_PAGES: u64 = 256;
/// Size of a first-level entry in bytes.
const LEVEL1_ENTRY: u64 = 8;
/// Maximum number of pages for which a flat table is preferred to two levels.
const FLAT_PAGES: u64 = 2;

/// Memory type for tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryType {
    /// The best memory type that the ITS accepts.
    Negotiated,
    /// Device-nGnRnE, Inner Shareable.
    Device,
}

/// A table whose address has been written to its register.
#[derive(Debug)]
pub(crate) struct ItsTable {
    register: Reg<Baser>,
    value: Baser,
    memory: Table,
    coherence: Coherence,
    shape: TableShape,
    constraints: TableConstraints,
    /// Second-level pages, indexed by their first-level entry.
    second_level: SortedMap<u64, Table>,
}

/// Requirements for a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableRequest {
    pub(crate) kind: TableKind,
    /// Table name for errors.
    pub(crate) name: &'static str,
    /// Exclusive upper limit for identifiers.
    pub(crate) ids: u64,
    pub(crate) coherence: Coherence,
    pub(crate) constraints: TableConstraints,
    pub(crate) memory_type: MemoryType,
}

/// Table formats that a `GITS_BASER<n>` register supports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BaserAbilities {
    pub(crate) page: PageSize,
    pub(crate) entry_bytes: u64,
    pub(crate) levels: Levels,
}

/// Number of levels in a table, or the maximum that a register supports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Levels {
    /// A flat table.
    One,
    /// Two levels: a first level that points to pages of entries.
    Two,
}

/// Size and number of levels of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableShape {
    pub(crate) levels: Levels,
    /// Number of pages for the register's size field.
    pub(crate) pages: u64,
    /// Exclusive upper limit for identifiers in the table.
    pub(crate) ids: u64,
    /// Identifiers per page of entries.
    pub(crate) ids_per_page: u64,
}

impl TableShape {
    /// Chooses a table form for `ids` identifiers, or for fewer if the register does not support
    /// enough pages.
    pub(crate) fn choose(abilities: BaserAbilities, ids: u64) -> Self {
        let page = abilities.page.bytes();
        let flat_pages = (ids * abilities.entry_bytes).div_ceil(page).max(1);
        let ids_per_page = page / abilities.entry_bytes;
        if abilities.levels == Levels::Two && flat_pages > FLAT_PAGES {
            let first_level = ids.div_ceil(ids_per_page) * LEVEL1_ENTRY;
            let pages = first_level.div_ceil(page).min(MAX_PAGES);
            let reach = pages * (page / LEVEL1_ENTRY) * ids_per_page;
            return Self { levels: Levels::Two, pages, ids: ids.min(reach), ids_per_page };
        }
        let pages = flat_pages.min(MAX_PAGES);
        let reach = pages * page / abilities.entry_bytes;
        Self { levels: Levels::One, pages, ids: ids.min(reach), ids_per_page }
    }
}

impl ItsTable {
    /// Allocates and programs the table of `request.kind`, if the ITS has a register for it. The
    /// ITS must be disabled.
    ///
    /// # Errors
    /// [`ProbeError::NoMemory`] or [`ProbeError::Misplaced`] if the platform has no suitable
    /// memory; [`ProbeError::TableRefused`] if the register does not accept the table. On error,
    /// all memory has been freed.
    pub(crate) fn provision<P: GicPlatform>(
        frame: &ControlFrame<P>,
        request: TableRequest,
    ) -> Result<Option<Self>, ProbeError> {
        let find = |register: &Reg<Baser>| frame.registers.read(*register).kind() == request.kind;
        let Some(register) = gits::BASER.iter().find(find) else { return Ok(None) };
        let refused =
            |reason| ProbeError::TableRefused { base: frame.base, table: request.name, reason };
        let abilities = BaserAbilities::probe(&frame.registers, register)
            .ok_or(refused("its GITS_BASER<n> accepts no page size"))?;
        let (shape, memory) = allocate(frame, abilities, request)
            .map_err(|error| ProbeError::no_table(frame.base, request.name, error))?;
        let value = Baser::new()
            .with_page_size(abilities.page)
            .with_pages_minus_one(u8::try_from(shape.pages - 1).unwrap_or(u8::MAX))
            .with_indirect(shape.levels == Levels::Two)
            .with_address(memory.address)
            .with_valid(true);
        match program(&frame.registers, register, value, request) {
            Ok((value, coherence)) => {
                let (constraints, second_level) = (request.constraints, SortedMap::new());
                Ok(Some(Self {
                    register,
                    value,
                    memory,
                    coherence,
                    shape,
                    constraints,
                    second_level,
                }))
            }
            Err(reason) => {
                frame.registers.write(register, Baser::new());
                frame.platform.release_table(memory);
                Err(refused(reason))
            }
        }
    }

    /// Removes the table from the disabled ITS and frees its memory.
    pub(crate) fn release<P: GicPlatform>(&mut self, frame: &ControlFrame<P>) {
        frame.registers.write(self.register, Baser::new());
        for page in core::mem::take(&mut self.second_level).into_values() {
            frame.platform.release_table(page);
        }
        frame.platform.release_table(self.memory.take());
    }

    /// Reprograms the table's register after the ITS lost it. The memory must have been preserved,
    /// and the ITS must be disabled.
    pub(crate) fn restore<P: GicPlatform>(&self, frame: &ControlFrame<P>) {
        frame.registers.write(self.register, self.value);
    }

    /// Returns an obstacle if `GITS_BASER<n>` no longer names this table.
    pub(super) fn obstacle<P: GicPlatform>(&self, frame: &ControlFrame<P>) -> Option<Obstacle> {
        let value = frame.registers.read(self.register);
        let offset = self.register.offset() - gits::BASER.get(0)?.offset();
        let register = TableRegister::Baser(u8::try_from(offset / 8).ok()?);
        if !value.valid() {
            return Some(Obstacle::InvalidTable { register, value: value.into_bits() });
        }
        let (found, expected) = (value.address(), self.value.address());
        (found != expected).then_some(Obstacle::OtherTable { register, found, expected })
    }

    /// Returns the exclusive upper limit for identifiers in the table.
    pub(crate) fn ids(&self) -> u64 {
        self.shape.ids
    }

    /// Ensures that memory exists for the entry of `id`, which must be below [`ids`](Self::ids).
    pub(crate) fn ensure<P: GicPlatform>(
        &mut self,
        frame: &ControlFrame<P>,
        id: u32,
    ) -> Result<(), NoTable> {
        let index = u64::from(id) / self.shape.ids_per_page;
        if self.shape.levels == Levels::One || self.second_level.contains(index) {
            return Ok(());
        }
        self.second_level.reserve().map_err(|_| NoTable::NoMemory)?;
        let bytes = self.value.page_size().bytes();
        let page = self.constraints.allocate(&*frame.platform, bytes, bytes, ADDRESS_BITS)?;
        let entry = Level1Entry::new().with_address(page.address).with_valid(true);
        let offset = index * LEVEL1_ENTRY;
        frame.platform.store64(&self.memory, offset, entry.into_bits());
        frame.platform.publish(&self.memory, offset..offset + LEVEL1_ENTRY, self.coherence);
        self.second_level.insert(index, page);
        Ok(())
    }
}

impl BaserAbilities {
    /// Probes the register by writing and reading back. Returns `None` if it accepts no page size.
    fn probe<M: Mmio>(registers: &M, register: Reg<Baser>) -> Option<Self> {
        let page =
            [PageSize::Size64K, PageSize::Size16K, PageSize::Size4K].into_iter().find(|page| {
                registers.write(register, Baser::new().with_page_size(*page));
                registers.read(register).page_size() == *page
            })?;
        registers.write(register, Baser::new().with_page_size(page).with_indirect(true));
        let answer = registers.read(register);
        let levels = if answer.indirect() { Levels::Two } else { Levels::One };
        Some(Self { page, entry_bytes: answer.entry_bytes().into(), levels })
    }
}

/// Returns the number of address bits in a register. Only tables of 64 KiB pages can lie beyond
/// 2^48 (IHI 0069 §12.19, `GITS_BASER<n>`). A first-level entry has 52 address bits with each page
/// size.
const fn address_bits(page: PageSize) -> u8 {
    match page {
        PageSize::Size4K | PageSize::Size16K => 48,
        PageSize::Size64K | PageSize::Reserved => ADDRESS_BITS,
    }
}

/// Clears all table registers. Otherwise, the register of a table that the driver does not provide
/// would keep pointing to a previous kernel's memory, which may have been reused. The ITS must be
/// disabled.
pub(crate) fn clear_all<M: Mmio>(registers: &M) {
    for register in gits::BASER.iter() {
        if registers.read(register).valid() {
            registers.write(register, Baser::new());
        }
    }
}

/// Allocates a table. If the allocation fails, retries with half as many identifiers, down to one
/// page: an ITS that supports fewer devices is better than no ITS. Callers that need all
/// identifiers must check the table's size.
fn allocate<P: GicPlatform>(
    frame: &ControlFrame<P>,
    abilities: BaserAbilities,
    request: TableRequest,
) -> Result<(TableShape, Table), NoTable> {
    let page = abilities.page.bytes();
    let mut shape = TableShape::choose(abilities, request.ids);
    loop {
        let bytes = shape.pages * page;
        let bits = address_bits(abilities.page);
        match request.constraints.allocate(&*frame.platform, bytes, page, bits) {
            Err(NoTable::NoMemory) if shape.pages > 1 => {
                shape = TableShape::choose(abilities, shape.ids / 2);
            }
            result => return result.map(|memory| (shape, memory)),
        }
    }
}

/// Writes a table's register with the best attributes that the ITS accepts.
fn program<M: Mmio>(
    registers: &M,
    register: Reg<Baser>,
    bare: Baser,
    request: TableRequest,
) -> Result<(Baser, Coherence), &'static str> {
    let cached = bare
        .with_shareability(Shareability::Inner)
        .with_inner_cache(Cacheability::ReadWriteAllocateWriteBack)
        .with_outer_cache(OuterCacheability::SameAsInner);
    let uncached = match request.memory_type {
        MemoryType::Negotiated => {
            bare.with_shareability(Shareability::Non).with_inner_cache(Cacheability::NonCacheable)
        }
        MemoryType::Device => {
            bare.with_shareability(Shareability::Inner).with_inner_cache(Cacheability::Device)
        }
    };
    let negotiated = request.memory_type == MemoryType::Negotiated;
    let (value, coherence) = if negotiated && request.coherence == Coherence::Coherent {
        registers.write(register, cached);
        match registers.read(register).shareability() {
            Shareability::Non => (uncached, Coherence::NonCoherent),
            _ => (cached, Coherence::Coherent),
        }
    } else {
        (uncached, Coherence::NonCoherent)
    };
    if coherence == Coherence::NonCoherent {
        registers.write(register, uncached);
    }
    let accepted = registers.read(register);
    if accepted.address_code() != value.address_code() {
        return Err("its GITS_BASER<n> does not accept the address");
    }
    let same_form = accepted.page_size() == value.page_size()
        && accepted.pages_minus_one() == value.pages_minus_one()
        && accepted.indirect() == value.indirect();
    match (same_form, accepted.valid()) {
        (false, _) => Err("its GITS_BASER<n> does not accept the size"),
        (true, false) => Err("its GITS_BASER<n> does not accept the valid bit"),
        (true, true) => Ok((value, coherence)),
    }
}

/// Both frames of an ITS, and the platform.
pub(crate) struct ControlFrame<P: GicPlatform> {
    pub(crate) platform: Arc<P>,
    pub(crate) registers: P::Mmio,
    /// Physical address.
    pub(crate) base: u64,
}

impl<P: GicPlatform> ControlFrame<P> {
    /// Maps the frames and checks that they belong to an ITS.
    pub(crate) fn map(platform: Arc<P>, base: u64) -> Result<Self, ProbeError> {
        let region = PhysicalRegion { base, bytes: gits::SIZE };
        let registers = platform.map(region).ok_or(ProbeError::Unmappable(base))?;
        match registers.read(id::PIDR2).revision() {
            ArchRevision::V3 | ArchRevision::V4 => Ok(Self { platform, registers, base }),
            ArchRevision::V1 | ArchRevision::V2 | ArchRevision::Unknown(_) => {
                Err(ProbeError::NotAnIts(base))
            }
        }
    }

    /// Disables the ITS and waits until it is quiescent. The ITS's tables must not be changed until
    /// the ITS is quiescent.
    pub(crate) fn quiesce(&self) -> Result<(), TimedOut> {
        let control = self.registers.read(gits::CTLR);
        // The Quiescent bit is UNKNOWN while the ITS is enabled, so disable the ITS first.
        if control.enabled() {
            self.registers.write(gits::CTLR, control.with_enabled(false));
        }
        wait_until(&*self.platform, "GITS_CTLR.Quiescent", || {
            self.registers.read(gits::CTLR).quiescent()
        })
    }

    /// Enables the ITS, which then accepts messages and commands.
    pub(crate) fn enable(&self) {
        let control = self.registers.read(gits::CTLR);
        self.registers.write(gits::CTLR, control.with_enabled(true));
    }
}

impl<P: GicPlatform> fmt::Debug for ControlFrame<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its@{:x}", self.base)
    }
}

/// Context in which a caller waits for the command queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// A task, which waits as long as the ITS makes progress, because another caller's batch may be
    /// long. If the ITS makes no progress for the platform's bound, it is considered unresponsive.
    Task,
    /// A caller in an arbitrary context, including interrupt handlers, which waits no longer than
    /// the platform's bound in total. This bound may be too short for all commands in the queue, so
    /// a timeout doesn't affect other callers.
    Any,
}

/// State of one caller's wait, across all chunks of its commands.
#[derive(Debug)]
pub(crate) struct QueueWait {
    context: Context,
    turn: u32,
    /// Commands consumed at the last poll.
    last_read: Option<u64>,
    wait: Wait,
}

impl QueueWait {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, turn: 0, last_read: None, wait: Wait::Again }
    }

    /// Decides whether to keep waiting after a poll that found the caller's commands incomplete.
    /// `read` is the number of consumed commands, and `unresponsive_at` is the ring's field of the
    /// same name.
    pub(crate) fn after(&mut self, read: u64, unresponsive_at: &mut Option<u64>) -> Wait {
        if *unresponsive_at == Some(read) {
            return Wait::GiveUp;
        }
        if self.context == Context::Task && self.last_read.replace(read) != Some(read) {
            (self.turn, self.wait) = (0, Wait::Again);
        }
        if self.wait == Wait::Again {
            return Wait::Again;
        }
        if self.context == Context::Task {
            *unresponsive_at = Some(read);
        }
        Wait::GiveUp
    }

    pub(crate) fn pause<P: GicPlatform>(&mut self, platform: &P) {
        self.wait = platform.wait(self.turn);
        self.turn = self.turn.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn abilities() -> impl Strategy<Value = BaserAbilities> {
        let page =
            prop_oneof![Just(PageSize::Size4K), Just(PageSize::Size16K), Just(PageSize::Size64K)];
        let levels = prop_oneof![Just(Levels::One), Just(Levels::Two)];
        (page, 1..=32_u64, levels).prop_map(|(page, entry_bytes, levels)| BaserAbilities {
            page,
            entry_bytes,
            levels,
        })
    }

    proptest! {
        #[test]
        fn table_has_an_entry_for_each_covered_id(
            abilities in abilities(), ids in 1..=1_u64 << 32, pick in any::<u64>(),
        ) {
            let shape = TableShape::choose(abilities, ids);
            let id = pick % shape.ids;
            let page = abilities.page.bytes();
            match shape.levels {
                Levels::One => prop_assert!((id + 1) * abilities.entry_bytes <= shape.pages * page),
                Levels::Two => {
                    prop_assert!(
                        (id / shape.ids_per_page + 1) * LEVEL1_ENTRY <= shape.pages * page
                    );
                    prop_assert!((id % shape.ids_per_page + 1) * abilities.entry_bytes <= page);
                }
            }
        }

        #[test]
        fn a_table_has_at_most_256_pages(abilities in abilities(), ids in 1..=1_u64 << 32) {
            let shape = TableShape::choose(abilities, ids);
            prop_assert!((1..=MAX_PAGES).contains(&shape.pages));
        }

        #[test]
        fn table_covers_all_ids_unless_it_has_256_pages(
            abilities in abilities(),
            ids in 1..=1_u64 << 32,
        ) {
            let shape = TableShape::choose(abilities, ids);
            prop_assert!(shape.ids == ids || shape.pages == MAX_PAGES);
        }
    }

    #[test]
    fn two_levels_are_not_used_for_a_small_table() {
        let abilities =
            BaserAbilities { page: PageSize::Size4K, entry_bytes: 8, levels: Levels::Two };
        assert_eq!(TableShape::choose(abilities, 1024).levels, Levels::One);
        assert_eq!(TableShape::choose(abilities, 1025).levels, Levels::Two);
    }

    #[test]
    fn one_64k_page_covers_20_device_bits() {
        let abilities =
            BaserAbilities { page: PageSize::Size64K, entry_bytes: 8, levels: Levels::Two };
        let shape = TableShape::choose(abilities, 1 << 20);
        assert_eq!((shape.pages, shape.ids, shape.ids_per_page), (1, 1 << 20, 8192));
    }
}
