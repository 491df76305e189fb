//! Interrupt remapping in Intel's format (VT-d specification §5). A device's message names an entry
//! of a table in memory. The entry names the vector and the CPU, and says who may ask for it.
//!
//! Differences for a domain above a remapping layer:
//! - **Isolation.** The unit checks who sends against the entry, so that a device rings its own
//!   interrupts alone.
//! - **Affinity.** A move writes the entry. The endpoint's message stays, whatever the endpoint can
//!   do.
//! - **Groups.** All messages of a MultiMSI function carry one handle, and the vector's number as
//!   sub-handle; each has an entry and moves alone.
//! - **Reach.** In x2APIC mode an entry names all 32 bits of an APIC ID.
//!
//! [`RemappedVectors`] is the driver's half: an [`MsiParent`] over a [`VectorDomain`].
//! [`RemapTable::translate`] is the unit's half, for device models and tests. Both read and write
//! the table through [`RemapMemory`].

mod handles;
mod irte;
mod message;
mod msi_parent;
mod source;
mod table;
mod translation;

use crate::apic::{ApicId, CpuVector};
use crate::vector_domain::VectorDomain;
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU16;
use doorbell_fallible::SortedMap;
use doorbell_lock::TaskLock;
use handles::Handles;
use msi_types::{ControllerFault, Cpu, HwIrq, HwIrqBlock, MsiError, RequesterId};

#[cfg(doc)]
use msi_types::MsiParent;

pub use irte::{ApicMode, Irte, IrteHigh, IrteLow, IrteTarget};
pub use message::RemappableMessage;
pub use source::{Source, SourceCheck};
pub use table::{CompatibilityFormat, RemapMemory, RemapTable, RemapTableConfig, TableSize};
pub use translation::RemapFault;

/// The unit's cache of entries. Implemented over its invalidation queue.
pub trait EntryCache: Send + Sync {
    /// Invalidates the unit's cache of the `2^log2_count` entries from `first` on, which is a
    /// multiple of that count. Must wait until the invalidation is complete, and until interrupts
    /// that the unit forwarded before have arrived (an interrupt entry cache invalidation and an
    /// invalidation wait).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The unit did not answer.
    fn invalidate(&self, first: u16, log2_count: u8) -> Result<(), InvalidationError>;
}

/// The unit did not take an invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the remapping unit did not invalidate its interrupt entry cache: {reason}")]
pub struct InvalidationError {
    /// The failure (`"timeout"`, `"queue error"`).
    pub reason: &'static str,
}

/// Parts of a remapping layer.
#[non_exhaustive]
pub struct RemappedVectorsConfig<M> {
    /// The CPUs' vectors.
    pub vectors: Arc<VectorDomain>,
    /// The table that the unit was given, all entries absent.
    pub table: RemapTable<M>,
    /// The unit's cache.
    pub cache: Arc<dyn EntryCache>,
    /// Physical base address of the unit's registers, to name it in errors.
    pub base: u64,
    /// The source as which the unit sees a requester: `None` for those that are not behind it.
    /// [`Source::pci`] where no bridge takes a requester's place.
    pub sources: Box<dyn Fn(RequesterId) -> Option<Source> + Send + Sync>,
}

impl<M> RemappedVectorsConfig<M> {
    /// The layer of a unit with registers at `base`, which sees requesters as [`Source::pci`].
    pub fn new(
        vectors: Arc<VectorDomain>,
        table: RemapTable<M>,
        cache: Arc<dyn EntryCache>,
        base: u64,
    ) -> Self {
        // A function has no size: its box takes no memory.
        Self { vectors, table, cache, base, sources: Box::new(Source::pci) }
    }

    msi_types::setters! {
        with_sources: sources: Box<dyn Fn(RequesterId) -> Option<Source> + Send + Sync>,
    }
}

impl<M> fmt::Debug for RemappedVectorsConfig<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemappedVectorsConfig").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The devices behind one remapping unit. See the [module](self).
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
    /// By attachment.
    devices: SortedMap<u32, Source>,
    /// By vector; a group's by its first vector.
    entries: SortedMap<u32, Entries>,
}

/// Entries one after the other, one for each vector.
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

    /// The entries of one vector of a block without a group.
    fn single(self, index: u16) -> Option<Self> {
        Some(Self { first: self.entry(index)?, count: NonZeroU16::MIN, ..self })
    }

    /// The least aligned power of two that covers them: its first entry, and its log2. Where parts
    /// of a block are left, it covers entries of others, which the unit then reads again.
    fn span(self) -> (u16, u8) {
        let last = self.first.saturating_add(self.count.get() - 1);
        let log2 = u16::BITS - (self.first ^ last).leading_zeros();
        let below = 1_u16.checked_shl(log2).map_or(u16::MAX, |span| span - 1);
        (self.first & !below, u8::try_from(log2).unwrap_or(16))
    }
}

/// Assignment of entries to messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// Each by its own handle.
    Handles,
    /// All by the first's, and a sub-handle.
    Subhandles,
}

impl<M: RemapMemory> RemappedVectors<M> {
    /// Creates a layer without devices.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn new(config: RemappedVectorsConfig<M>) -> Result<Self, TryReserveError> {
        let RemappedVectorsConfig { vectors, table, cache, base, sources } = config;
        let handles = Handles::new(table.size())?;
        let records = Records { handles, devices: SortedMap::new(), entries: SortedMap::new() };
        Ok(Self { vectors, table, cache, base, sources, records: TaskLock::new(records) })
    }

    /// The CPUs' vectors.
    pub fn vectors(&self) -> &Arc<VectorDomain> {
        &self.vectors
    }

    /// The table.
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

    /// The target of an entry for a vector at `cpu_vector`.
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
            // A CPU that was never on line is the vector domain's to refuse.
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

    /// Sends an entry's interrupts elsewhere.
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
    /// A vector's entries, or its group's, and which of them is its own.
    fn entries_of(&self, hwirq: HwIrq) -> Option<(Entries, u16)> {
        let (first, entries) = self.entries.last_up_to(hwirq.get())?;
        let index = u16::try_from(hwirq.get() - first).ok()?;
        Some((*entries, entries.entry(index)?))
    }

    /// Makes room for the entries of a new block.
    fn reserve(&mut self, format: Format, count: NonZeroU16) -> Result<(), TryReserveError> {
        match format {
            Format::Subhandles => self.entries.reserve(),
            Format::Handles => self.entries.reserve_many(count.get().into()),
        }
    }

    /// Remembers the entries of a new block: each by itself, as each may be freed by itself; a
    /// group's as one. Room was made.
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

    /// The entries of a block, or of the part of one, that is freed. `None` if there are no such
    /// entries: nothing is freed then.
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

impl<M> fmt::Debug for RemappedVectors<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemappedVectors").field("base", &self.base).finish_non_exhaustive()
    }
}
