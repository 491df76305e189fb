//! Records of allocated LPIs: the target of the message, and the CPUs where it may be pending. A
//! record changes under its own lock alone.

use super::ResendReason;
use super::cached_at::{CachedAt, PreviousTargets};
use super::cpu_set::CpuSet;
use crate::GicPlatform;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_lock::IrqLock;
use gic_arch::Lpi;
use msi_types::{Cpu, Fit};
use spin::Once;

/// LPIs per chunk of memory.
const CHUNK: usize = 256;

/// An allocated LPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// The CPU that its message names.
    pub(super) target: Cpu,
    /// The CPU that its message will name, between `begin_move` and `end_move`.
    pub(super) moving: Option<Cpu>,
    /// The CPUs that its message named before, at which it may still be pending.
    pub(super) previous: PreviousTargets,
    /// The first LPI of its group, which moves together.
    pub(super) first: Lpi,
    /// LPIs in the group.
    pub(super) count: NonZeroU16,
    /// Limits of the endpoint's message registers, and the way they are rewritten.
    pub(super) fit: Fit,
    pub(super) deferred: Deferred,
    /// Sleeping redistributors at which it may be pending for an earlier owner: it is cleared there
    /// when they wake.
    pub(super) stale: CpuSet,
}

impl Record {
    /// The redistributors at which it may be pending.
    pub(super) fn cached_at(&self) -> CachedAt {
        CachedAt::new(self.target, self.moving, self.previous)
    }

    /// Returns true if its messages go to the CPU, or are about to.
    pub(super) fn is_bound_for(&self, cpu: Cpu) -> bool {
        !self.is_freed() && (self.target == cpu || self.moving == Some(cpu))
    }

    /// Returns true if its owner freed it, and it must be cleared at the CPU before it is reused.
    pub(super) fn waits_for(&self, cpu: Cpu) -> bool {
        matches!(self.deferred, Deferred::Free(left) if left.contains(cpu))
    }

    /// Returns true if it may be pending at the CPU for an earlier owner, and not for this one.
    pub(super) fn is_stale_at(&self, cpu: Cpu) -> bool {
        self.stale.contains(cpu) && !self.cached_at().contains(cpu)
    }

    /// Returns true if its owner freed it.
    pub(super) const fn is_freed(&self) -> bool {
        matches!(self.deferred, Deferred::Free(_))
    }
}

/// Work for the time when a sleeping redistributor is awake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deferred {
    Nothing,
    /// The LPI becomes pending at its target, for this reason.
    SetPending(ResendReason),
    /// The LPI is freed once it was cleared at these redistributors.
    Free(CachedAt),
}

struct RecordSlot {
    record: Option<Record>,
    /// Redistributors at which it may be pending without an owner: devices of earlier owners sent
    /// messages there.
    unowned: CpuSet,
}

type RecordLock = IrqLock<RecordSlot>;

/// Records by LPI. Their memory is allocated in chunks, when LPIs are first allocated.
pub(super) struct Records {
    chunks: Vec<Once<Vec<RecordLock>>>,
    /// The CPUs at which an LPI may be pending before its first owner.
    unowned: CpuSet,
}

impl Records {
    /// For the `count` lowest LPIs. Before their first owner, they may be pending at the CPUs of
    /// `unowned`. `None` if there is no memory.
    pub(super) fn new(count: u32, unowned: CpuSet) -> Option<Self> {
        let chunks = filled((count as usize).div_ceil(CHUNK), Once::new)?;
        Some(Self { chunks, unowned })
    }

    /// Allocates the memory for an LPI's record; `false` if there is none.
    ///
    /// Context: task; may sleep.
    pub(super) fn reserve(&self, lpi: Lpi) -> bool {
        let entry = || IrqLock::new(RecordSlot { record: None, unowned: self.unowned });
        let chunk = || filled(CHUNK, entry).ok_or(());
        self.chunks.get(locate(lpi).0).is_some_and(|once| once.try_call_once(chunk).is_ok())
    }

    /// Adds an LPI whose [memory](Self::reserve) must have been reserved. Returns the CPUs where it
    /// may be pending without an owner, at which it is [stale](Record::stale).
    ///
    /// Context: any.
    pub(super) fn insert<P: GicPlatform>(&self, platform: &P, lpi: Lpi, record: Record) -> CpuSet {
        let Some(slot) = self.slot(lpi) else { return CpuSet::NONE };
        slot.with(platform, |entry| {
            entry.record = Some(Record { stale: entry.unowned, ..record });
            entry.unowned
        })
    }

    /// Removes an LPI and returns its record.
    ///
    /// Context: any.
    pub(super) fn remove<P: GicPlatform>(&self, platform: &P, lpi: Lpi) -> Option<Record> {
        self.slot(lpi)?.with(platform, |entry| {
            let record = entry.record.take()?;
            let ends = [Some(record.target), record.moving];
            entry.unowned = ends.into_iter().flatten().fold(record.stale, CpuSet::with);
            Some(record)
        })
    }

    /// Returns a copy of the record; `None` if the LPI is not allocated.
    ///
    /// Context: any.
    pub(super) fn get<P: GicPlatform>(&self, platform: &P, lpi: Lpi) -> Option<Record> {
        self.update(platform, lpi, |record| *record)
    }

    /// Changes the record.
    ///
    /// Context: any.
    pub(super) fn update<P: GicPlatform, R>(
        &self,
        platform: &P,
        lpi: Lpi,
        change: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        self.slot(lpi)?.with(platform, |entry| entry.record.as_mut().map(change))
    }

    /// Calls `look` with each record; records that are added or removed concurrently may be missed.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub(super) fn for_each<P: GicPlatform>(
        &self,
        platform: &P,
        mut look: impl FnMut(Lpi, &mut Record),
    ) {
        for lpi in self.lpis() {
            self.update(platform, lpi, |record| look(lpi, record));
        }
    }

    /// Returns the LPIs that have memory for a record.
    ///
    /// Context: any.
    pub(super) fn lpis(&self) -> impl Iterator<Item = Lpi> {
        let present = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.is_completed());
        present.flat_map(|(chunk, _)| (0..CHUNK).filter_map(move |index| lpi_at(chunk, index)))
    }

    fn slot(&self, lpi: Lpi) -> Option<&RecordLock> {
        let (chunk, index) = locate(lpi);
        self.chunks.get(chunk)?.get()?.get(index)
    }
}

/// As many as that; `None` if there is no memory.
fn filled<T>(count: usize, new: impl FnMut() -> T) -> Option<Vec<T>> {
    let mut items = Vec::new();
    items.try_reserve_exact(count).ok()?;
    items.resize_with(count, new);
    Some(items)
}

fn locate(lpi: Lpi) -> (usize, usize) {
    let index = lpi.index() as usize;
    (index / CHUNK, index % CHUNK)
}

fn lpi_at(chunk: usize, index: usize) -> Option<Lpi> {
    Lpi::from_index(u32::try_from(chunk * CHUNK + index).ok()?)
}
