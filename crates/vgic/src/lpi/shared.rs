//! The tables that injection and acknowledgment access: lock-free atomics in type-stable memory.
//! Memory that either path can reach isn't freed while the core exists.

use super::config::{LpiConfig, Priorities};
use super::entry::{Entry, Level};
use super::entry_table::{EntryIndex, EntryTable, Position};
use super::itt::Nodes;
use super::pending_kicks::PendingKicks;
use super::ready_bitmap::{Cleared, ReadyBitmap};
use super::redistributor_lpis::RedistributorLpis;
use crate::wakeup::WakeupWord;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc};
use gic_arch::Lpi;

/// An LPI core's shared tables.
pub(super) struct Shared {
    /// Entries by position.
    pub(super) entries: EntryTable,
    /// ITT nodes, between device table entries and translation entries.
    pub(super) nodes: Nodes,
    /// Ready bitmaps, indexed by vCPU.
    pub(super) ready: Box<[Arc<ReadyBitmap>]>,
    /// Redistributors' own LPIs, indexed by vCPU.
    own: Box<[RedistributorLpis]>,
    /// Position of a redistributor's first own LPI; the other LPIs follow like entries, by index.
    /// All vCPUs can use the same positions, because each has its own ready bitmap.
    pub(super) first_own: u32,
    /// Mapping from the entries' levels to CPU interface priorities.
    pub(super) priorities: Priorities,
    pub(super) pending_kicks: PendingKicks,
}

/// Location of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Location {
    /// An event's entry.
    Event(EntryIndex),
    /// A redistributor's entry for its own LPI.
    Own {
        /// The redistributor's vCPU.
        vcpu: u32,
        /// The LPI's index.
        index: u32,
    },
}

impl Location {
    /// Returns the location of a redistributor's own LPI.
    pub(super) const fn own(vcpu: u32, lpi: Lpi) -> Self {
        Self::Own { vcpu, index: lpi.index() }
    }
}

impl Shared {
    /// Creates tables without mappings, with all LPIs disabled.
    pub(super) fn new(config: &LpiConfig, words: &[Arc<WakeupWord>]) -> Result<Self, OutOfMemory> {
        let (first_own, lpis) = (config.first_own_position(), config.lpis());
        let bitmap = |vcpu: u32| {
            Ok(try_arc(ReadyBitmap::new(first_own + lpis, words[vcpu as usize].clone()))?)
        };
        Ok(Self {
            entries: EntryTable::new(first_own)?,
            nodes: Nodes::new(config.nodes())?,
            ready: by_vcpu(config, bitmap)?,
            own: by_vcpu(config, |vcpu| RedistributorLpis::new(vcpu, lpis))?,
            first_own,
            priorities: config.priorities,
            pending_kicks: PendingKicks::new(config.vcpus)?,
        })
    }

    /// Returns the LPIs owned by a vCPU's redistributor.
    pub(super) fn own(&self, vcpu: u32) -> Option<&RedistributorLpis> {
        self.own.get(vcpu as usize)
    }

    pub(super) const fn own_position(&self, index: u32) -> Position {
        EntryIndex::new(self.first_own + index).position()
    }

    /// Returns the index of the redistributor's own LPI at `position`, or `None` if the position is
    /// that of an event's entry.
    #[inline]
    fn own_index(&self, position: Position) -> Option<u32> {
        let is_own = position.get() >= self.first_own;
        is_own.then(|| position.index().get() - self.first_own)
    }

    /// Returns the position of an entry's ready bits.
    pub(super) const fn position(&self, location: Location) -> Position {
        match location {
            Location::Event(index) => index.position(),
            Location::Own { index, .. } => self.own_position(index),
        }
    }

    /// Loads an entry.
    pub(super) fn load(&self, location: Location) -> Entry {
        match location {
            Location::Event(index) => self.entries.load(index.position()),
            Location::Own { vcpu, index } => {
                self.own(vcpu).map_or(Entry::unmapped(0), |own| own.load(index))
            }
        }
    }

    /// Replaces an entry with the result of `change`, in one read-modify-write. Returns the old and
    /// the new value.
    pub(super) fn update(
        &self,
        location: Location,
        change: impl Fn(Entry) -> Entry,
    ) -> (Entry, Entry) {
        let old = self.try_update(location, |entry| Some(change(entry)));
        let old = old.unwrap_or(Entry::unmapped(0));
        (old, change(old))
    }

    /// Replaces an entry with the result of `change`, in one read-modify-write. Returns the old
    /// value, or `None` if `change` returned `None`.
    pub(super) fn try_update(
        &self,
        location: Location,
        change: impl Fn(Entry) -> Option<Entry>,
    ) -> Option<Entry> {
        match location {
            Location::Event(index) => self.entries.try_update(index.position(), change),
            Location::Own { vcpu, index } => self.try_update_own(vcpu, index, change),
        }
    }

    /// Loads the entry for one of `vcpu`'s ready bits.
    #[inline]
    pub(super) fn load_at(&self, vcpu: u32, position: Position) -> Entry {
        match self.own_index(position) {
            None => self.entries.load(position),
            Some(index) => self.load(Location::Own { vcpu, index }),
        }
    }

    /// Replaces the entry for one of `vcpu`'s ready bits with the result of `change`, in one
    /// read-modify-write. Returns the old value, or `None` if `change` returned `None`.
    #[inline]
    pub(super) fn try_update_at(
        &self,
        vcpu: u32,
        position: Position,
        change: impl Fn(Entry) -> Option<Entry>,
    ) -> Option<Entry> {
        match self.own_index(position) {
            None => self.entries.try_update(position, change),
            Some(index) => self.try_update_own(vcpu, index, change),
        }
    }

    /// Updates a redistributor's own entry. The function is separate to keep the path for event
    /// entries short.
    #[inline(never)]
    fn try_update_own(
        &self,
        vcpu: u32,
        index: u32,
        change: impl Fn(Entry) -> Option<Entry>,
    ) -> Option<Entry> {
        self.own(vcpu)?.try_update(index, change)
    }

    /// Clears the ready bit that an entry had before a change.
    pub(super) fn clear_ready_bit(&self, old: Entry, position: Position) -> Option<Cleared> {
        let bitmap = self.ready.get(old.target() as usize)?;
        Some(bitmap.clear(old.level(), position))
    }

    /// Allocates the ready bit at `position` for this vCPU and level, if necessary. Must not be
    /// called on the hot path.
    pub(super) fn ensure_ready_bit(
        &self,
        target: u32,
        level: Level,
        position: Position,
    ) -> Result<(), OutOfMemory> {
        self.ready.get(target as usize).map_or(Ok(()), |bitmap| bitmap.ensure(level, position))
    }
}

/// Creates one value per vCPU.
fn by_vcpu<T>(
    config: &LpiConfig,
    mut make: impl FnMut(u32) -> Result<T, OutOfMemory>,
) -> Result<Box<[T]>, OutOfMemory> {
    let mut all = Vec::new();
    all.try_reserve_exact(config.vcpus.into())?;
    for vcpu in 0..config.vcpus {
        all.push(make(vcpu.into())?);
    }
    Ok(all.into_boxed_slice())
}
