//! Interrupt remapping in Intel's format (VT-d specification §5). A device's message refers to an
//! entry in an in-memory table. The entry determines the vector, the CPU, and which requesters may
//! use it.
//!
//! A remapping layer changes the following for the domains above it:
//! - **Isolation.** The unit checks the requester of each message against the entry, so that a
//!   device can signal only its own interrupts.
//! - **Affinity.** Moving an interrupt rewrites the table entry. The endpoint's message stays the
//!   same, so interrupts can move even if the endpoint can't change its message.
//! - **Groups.** All messages of a MultiMSI function carry the same handle, with the vector's
//!   number as sub-handle. Each vector has its own entry and moves independently.
//! - **Reach.** In x2APIC mode, an entry holds all 32 bits of an APIC ID.
//!
//! [`RemappedVectors`] is the driver's half: an [`MsiParent`] on top of a [`VectorDomain`].
//! [`RemapTable::translate`] is the unit's half, for device models and tests. Both access the table
//! through [`RemapMemory`].

mod msi_parent;
mod table;
mod translation;

use crate::message::{ApicId, CpuVector};
use crate::vector_domain::VectorDomain;
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use doorbell_fallible::SortedMap;
use doorbell_fallible::lock::TaskLock;
#[cfg(doc)]
use msi_types::MsiParent;
use msi_types::{ControllerFault, Cpu, HwIrq, HwIrqBlock, MsiError, RequesterId};
use table::Handles;

pub use table::{
    ApicMode, CompatibilityFormat, Irte, IrteHigh, IrteLow, IrteTarget, RemapMemory, RemapTable,
    RemapTableConfig, Source, SourceCheck, TableSize,
};
pub use translation::{RemapFault, RemappableMessage};

/// The unit's cache of entries. Implementations use its invalidation queue.
pub trait EntryCache: Send + Sync {
    /// Invalidates the unit's cache of the `2^log2_count` entries from `first` on, where `first` is
    /// a multiple of that count. Implementations must wait until the invalidation is complete, and
    /// until all interrupts that the unit has already forwarded have arrived (i.e. an interrupt
    /// entry cache invalidation, then an invalidation wait).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the unit did not complete the invalidation.
    fn invalidate(&self, first: u16, log2_count: u8) -> Result<(), InvalidationError>;
}

/// Error for an invalidation that the unit did not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the remapping unit did not invalidate its interrupt entry cache: {reason}")]
pub struct InvalidationError {
    /// Reason, such as `"timeout"` or `"queue error"`.
    pub reason: &'static str,
}

/// The parts of a remapping layer.
#[non_exhaustive]
pub struct RemappedVectorsConfig<M> {
    /// The domain that allocates the CPUs' vectors.
    pub(crate) vectors: Arc<VectorDomain>,
    /// Table that the unit was configured with. All entries must be absent.
    pub(crate) table: RemapTable<M>,
    /// Cache of the unit.
    pub(crate) cache: Arc<dyn EntryCache>,
    /// Physical base address of the unit's registers, which identifies the unit in errors.
    pub(crate) base: u64,
    pub(crate) sources: Box<dyn Fn(RequesterId) -> Option<Source> + Send + Sync>,
}

impl<M> RemappedVectorsConfig<M> {
    /// Creates the configuration for a unit with registers at `base`, which sees requesters as
    /// [`Source::pci`].
    pub fn new(
        vectors: Arc<VectorDomain>,
        table: RemapTable<M>,
        cache: Arc<dyn EntryCache>,
        base: u64,
    ) -> Self {
        // A function item has no size, so this box does not allocate.
        Self { vectors, table, cache, base, sources: Box::new(Source::pci) }
    }

    msi_types::setters! {
        /// Sets the map from a requester to the source that the unit sees, or to `None` if the
        /// requester is not behind the unit. [`Source::pci`] is correct unless a bridge replaces
        /// the requester's ID.
        with_sources: sources: Box<dyn Fn(RequesterId) -> Option<Source> + Send + Sync>,
    }
}

msi_types::debug_by!([M] RemappedVectorsConfig<M> as "RemappedVectorsConfig", |it| {base: it.base});

/// Remapping layer for the devices behind one unit. See the [module](self).
///
/// ```
/// use core::num::NonZeroU16;
/// use msi_types::{BlockRequest, Cpu, Fit, MsiParent, RequesterId, Rewrite};
/// use std::sync::Arc;
/// use x86_irq::remapping::{ApicMode, EntryCache, RemapMemory, RemapTableConfig, TableSize};
/// use x86_irq::{RemapTable, RemappedVectors, RemappedVectorsConfig, VectorDomain};
///
/// /// `memory` is the zeroed table of the unit at `base`, and `cache` sends it invalidations.
/// fn remap<M: RemapMemory>(
///     vectors: Arc<VectorDomain>,
///     memory: M,
///     cache: Arc<dyn EntryCache>,
///     base: u64,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let config = RemapTableConfig::new(TableSize::MAX, ApicMode::X2apic);
///     let table = RemapTable::new(config, memory);
///     let parent = RemappedVectors::new(RemappedVectorsConfig::new(vectors, table, cache, base))?;
///
///     let nic = RequesterId::pci(1, 0, 0);
///     let device = parent.attach(nic, 1)?;
///     let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), Cpu::new(0));
///     let block = parent.allocate(&device, &request)?;
///     let message = parent.compose(&block, 0)?;
///     println!("the unit sends {:?}", parent.table().translate(nic, message)?);
///     Ok(())
/// }
/// ```
pub struct RemappedVectors<M> {
    vectors: Arc<VectorDomain>,
    table: RemapTable<M>,
    cache: Arc<dyn EntryCache>,
    base: u64,
    sources: Box<dyn Fn(RequesterId) -> Option<Source> + Send + Sync>,
    records: TaskLock<Records>,
}

struct Records {
    handles: Handles,
    /// Table entries by vector. The entries of a group are stored under the group's first vector.
    entries: SortedMap<u32, Entries>,
}

/// Consecutive entries, one for each vector.
#[derive(Clone, Copy, Debug)]
struct Entries {
    first: u16,
    count: NonZeroU16,
    source: Source,
    format: Format,
}

impl Entries {
    fn entry(&self, index: u16) -> Option<u16> {
        if index < self.count.get() { self.first.checked_add(index) } else { None }
    }

    /// Returns the entry of one vector of a block that is not a group.
    fn single(self, index: u16) -> Option<Self> {
        Some(Self { first: self.entry(index)?, count: NonZeroU16::MIN, ..self })
    }

    /// Returns the smallest aligned power-of-two range that covers the entries, as its first entry
    /// and the log2 of its length. For part of a block, the range may cover unrelated entries. This
    /// is harmless, because the unit reads these entries again.
    fn span(self) -> (u16, u8) {
        let last = self.first.saturating_add(self.count.get() - 1);
        let log2 = u16::BITS - (self.first ^ last).leading_zeros();
        let below = 1_u16.checked_shl(log2).map_or(u16::MAX, |span| span - 1);
        (self.first & !below, u8::try_from(log2).unwrap_or(16))
    }
}

/// Way in which messages refer to entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// Each message has the handle of its own entry.
    Handles,
    /// All messages have the handle of the first entry, and their own sub-handle.
    Subhandles,
}

impl<M: RemapMemory> RemappedVectors<M> {
    /// Creates a layer without devices.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the kernel's heap is exhausted.
    pub fn new(config: RemappedVectorsConfig<M>) -> Result<Self, TryReserveError> {
        let RemappedVectorsConfig { vectors, table, cache, base, sources } = config;
        let handles = Handles::new(table.size())?;
        let records = Records { handles, entries: SortedMap::new() };
        Ok(Self { vectors, table, cache, base, sources, records: TaskLock::new(records) })
    }

    /// Returns the domain that allocates the CPUs' vectors.
    pub fn vectors(&self) -> &Arc<VectorDomain> {
        &self.vectors
    }

    /// Returns the table.
    pub fn table(&self) -> &RemapTable<M> {
        &self.table
    }

    /// Returns the number of entries in use.
    ///
    /// Context: task; may sleep.
    pub fn entries_in_use(&self) -> u32 {
        self.with_records(|records| records.handles.used())
    }

    fn with_records<R>(&self, f: impl FnOnce(&mut Records) -> R) -> R {
        self.records.with(self.vectors.apic(), f)
    }

    /// Returns the target of an entry for the vector at `cpu_vector`.
    fn target(&self, cpu_vector: CpuVector) -> Result<IrteTarget, MsiError> {
        let unreachable = MsiError::NotReachable(
            cpu_vector.cpu,
            "its APIC ID does not fit the remapping table's entries",
        );
        let id = self
            .vectors
            .apic_id(cpu_vector.cpu)
            .filter(|id| self.reaches(*id))
            .ok_or(unreachable)?;
        Ok(IrteTarget::fixed(id, cpu_vector.vector))
    }

    fn reaches(&self, id: ApicId) -> bool {
        self.table.mode().reaches(id)
    }

    fn check_reachable(&self, cpu: Cpu) -> Result<(), MsiError> {
        match self.vectors.apic_id(cpu) {
            Some(id) if !self.reaches(id) => Err(MsiError::NotReachable(
                cpu,
                "its APIC ID does not fit the remapping table's entries",
            )),
            // A CPU without an APIC ID was never online; the vector domain refuses it.
            _ => Ok(()),
        }
    }

    fn write_all(&self, entries: &Entries, first: HwIrq) -> Result<(), MsiError> {
        for index in 0..entries.count.get() {
            let vector = first.checked_add(index.into()).ok_or(MsiError::UnknownVector(first))?;
            let cpu_vector =
                self.vectors.cpu_vector(vector).ok_or(MsiError::UnknownVector(vector))?;
            let entry = entries.entry(index).ok_or(MsiError::UnknownVector(vector))?;
            self.table.set(entry, Irte::present(self.target(cpu_vector)?, entries.source));
        }
        self.invalidate_all(entries, "entries made present")
    }

    fn clear_all(&self, entries: &Entries) -> Result<(), MsiError> {
        (0..entries.count.get())
            .filter_map(|index| entries.entry(index))
            .for_each(|e| self.table.clear(e));
        self.invalidate_all(entries, "entries made absent")
    }

    fn invalidate_all(&self, entries: &Entries, operation: &'static str) -> Result<(), MsiError> {
        let (first, log2) = entries.span();
        self.cache.invalidate(first, log2).map_err(|error| self.fault(operation, error))
    }

    /// Changes the target of an entry's interrupts.
    fn retarget(
        &self,
        entries: &Entries,
        entry: u16,
        cpu_vector: CpuVector,
    ) -> Result<(), MsiError> {
        self.table.retarget(entry, self.target(cpu_vector)?, entries.source);
        self.cache.invalidate(entry, 0).map_err(|error| self.fault("entry changed", error))
    }

    fn fault(&self, operation: &'static str, error: InvalidationError) -> MsiError {
        MsiError::Controller(ControllerFault {
            kind: "interrupt remapping",
            base: self.base,
            operation,
            device: None,
            event: None,
            reason: error.reason,
        })
    }
}

impl Records {
    /// Returns the entries of a vector or of its group, and the vector's own entry among them.
    fn entries_of(&self, hwirq: HwIrq) -> Option<(Entries, u16)> {
        let (first, entries) = self.entries.last_up_to(hwirq.get())?;
        let index = u16::try_from(hwirq.get() - first).ok()?;
        Some((*entries, entries.entry(index)?))
    }

    /// Reserves memory for the entries of a new block.
    fn reserve(&mut self, format: Format, count: NonZeroU16) -> Result<(), TryReserveError> {
        match format {
            Format::Subhandles => self.entries.reserve(),
            Format::Handles => self.entries.reserve_many(count.get().into()),
        }
    }

    /// Records the entries of a new block. The entries of a group share a record; all others have
    /// their own, because each vector may be freed separately. [`reserve`](Self::reserve) must have
    /// been called.
    fn insert(&mut self, block: &HwIrqBlock, entries: Entries) {
        match entries.format {
            Format::Subhandles => self.entries.insert(block.first().get(), entries),
            Format::Handles => {
                let single = |index| Some((block.hwirq(index)?.get(), entries.single(index)?));
                for (vector, single) in (0..entries.count.get()).filter_map(single) {
                    self.entries.insert(vector, single);
                }
            }
        }
    }

    /// Removes the entries of a block that is being freed, or of a freed part of a block. Returns
    /// `None`, and removes nothing, if the block does not have these entries.
    fn remove(&mut self, block: &HwIrqBlock) -> Option<Entries> {
        let first = *self.entries.get(block.first().get())?;
        let count = block.count();
        if first.format == Format::Subhandles {
            return if first.count == count {
                self.entries.remove(block.first().get())
            } else {
                None
            };
        }
        let entries = Entries { count, ..first };
        let vectors = || (0..count.get()).filter_map(|index| block.hwirq(index));
        let owned = |(index, vector): (u16, HwIrq)| {
            let entry = self.entries.get(vector.get());
            entry.is_some_and(|entry| Some(entry.first) == entries.entry(index))
        };
        if !(0..).zip(vectors()).all(owned) {
            return None;
        }
        for vector in vectors() {
            self.entries.remove(vector.get());
        }
        Some(entries)
    }
}

msi_types::debug_by!([M] RemappedVectors<M> as "RemappedVectors", |it| {base: it.base});
