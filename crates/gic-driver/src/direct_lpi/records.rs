//! Records for allocated LPIs: the CPU that an LPI's message targets, and the CPUs at which the LPI
//! may be pending. Each record has its own lock, which must be held to change it.
//!
//! Every LPI that the driver itself resends is reported to a [`ResendObserver`], which is hidden
//! from the documentation. Tests use it to compare handler runs with messages.

use crate::GicPlatform;
use alloc::collections::TryReserveError;
use core::num::NonZeroU16;
use doorbell_fallible::LazyTable;
use doorbell_fallible::lock::IrqLock;
use gic_arch::Lpi;
use msi_types::{Cpu, Fit, HwIrq};

/// LPIs per memory chunk.
const CHUNK: usize = 256;

/// An allocated LPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// CPU that the LPI's message targets.
    pub(super) target: Cpu,
    /// CPU that the LPI's message will target after the current move, set between `begin_move` and
    /// `end_move`.
    pub(super) moving: Option<Cpu>,
    /// Earlier targets of the message, at which the LPI may still be pending.
    pub(super) previous: PreviousTargets,
    /// First LPI in its group. The group must be moved as a whole.
    pub(super) first: Lpi,
    /// Number of LPIs in the group.
    pub(super) count: NonZeroU16,
    /// Limits of the endpoint's message registers, and how they are rewritten.
    pub(super) fit: Fit,
    /// Work that is deferred until a sleeping redistributor wakes.
    pub(super) deferred: Deferred,
    /// Sleeping redistributors at which the LPI may be pending for an earlier owner. The LPI is
    /// cleared at each of them when it wakes.
    pub(super) stale: CpuSet,
}

impl Record {
    /// Returns the redistributors at which the LPI may be pending.
    pub(super) fn cached_at(&self) -> CachedAt {
        let mut all = CachedAt::NONE;
        let targets = [Some(self.target), self.moving].into_iter().flatten();
        targets.chain(self.previous.iter()).for_each(|cpu| all.add(cpu));
        all
    }

    /// Returns `true` if the LPI's message targets the CPU, or will target it after the current
    /// move.
    pub(super) fn is_bound_for(&self, cpu: Cpu) -> bool {
        !self.is_freed() && (self.target == cpu || self.moving == Some(cpu))
    }

    /// Returns `true` if the LPI was freed but must be cleared at the CPU's redistributor before it
    /// can be reused.
    pub(super) fn waits_for(&self, cpu: Cpu) -> bool {
        matches!(self.deferred, Deferred::Free(left) if left.contains(cpu))
    }

    /// Returns `true` if the LPI may be pending at the CPU for an earlier owner, but not for the
    /// current owner.
    pub(super) fn is_stale_at(&self, cpu: Cpu) -> bool {
        self.stale.contains(cpu) && !self.cached_at().contains(cpu)
    }

    /// Returns `true` if the owner has freed the LPI.
    pub(super) const fn is_freed(&self) -> bool {
        matches!(self.deferred, Deferred::Free(_))
    }
}

/// Work that is deferred until a sleeping redistributor wakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deferred {
    Nothing,
    /// Resend the LPI at its target, for this reason.
    SetPending(ResendReason),
    /// Free the LPI once it has been cleared at these redistributors.
    Free(CachedAt),
}

struct RecordSlot {
    record: Option<Record>,
    /// Redistributors that the messages of earlier owners targeted, at which the LPI may be pending
    /// without an owner.
    unowned: CpuSet,
}

type RecordLock = IrqLock<RecordSlot>;

/// Records for all LPIs. Memory is allocated in chunks as LPIs are first allocated.
pub(super) struct Records {
    slots: LazyTable<RecordLock, CHUNK>,
    /// CPUs at which an LPI may be pending before its first allocation.
    unowned: CpuSet,
}

impl Records {
    /// Creates records for the lowest `count` LPIs. Before its first allocation, an LPI may be
    /// pending at the CPUs in `unowned`.
    pub(super) fn new(count: u32, unowned: CpuSet) -> Result<Self, TryReserveError> {
        Ok(Self { slots: LazyTable::try_new(count as usize)?, unowned })
    }

    /// Allocates the memory for the records of a block.
    ///
    /// Context: task; may sleep.
    pub(super) fn reserve(&self, block: LpiBlock) -> Result<(), TryReserveError> {
        let first = block.first.index() as usize;
        self.slots.reserve(first..first + usize::from(block.count.get()), || {
            IrqLock::new(RecordSlot { record: None, unowned: self.unowned })
        })
    }

    /// Adds an LPI's record. The memory for the record must have been [reserved](Self::reserve).
    /// Returns the CPUs at which the LPI may be pending for an earlier owner, which are also the
    /// record's [`stale`](Record::stale) CPUs.
    ///
    /// Context: any.
    pub(super) fn insert<P: GicPlatform>(&self, platform: &P, lpi: Lpi, record: Record) -> CpuSet {
        let Some(slot) = self.slot(lpi) else { return CpuSet::NONE };
        slot.with(platform, |entry| {
            entry.record = Some(Record { stale: entry.unowned, ..record });
            entry.unowned
        })
    }

    /// Removes and returns an LPI's record.
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

    /// Returns a copy of the record, or `None` if the LPI is not allocated.
    ///
    /// Context: any.
    pub(super) fn get<P: GicPlatform>(&self, platform: &P, lpi: Lpi) -> Option<Record> {
        self.update(platform, lpi, |record| *record)
    }

    /// Calls `change` with an LPI's record and returns its result.
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

    /// Calls `change` with the record of each LPI in the block.
    ///
    /// Context: any.
    pub(super) fn update_block<P: GicPlatform>(
        &self,
        platform: &P,
        block: LpiBlock,
        mut change: impl FnMut(Lpi, &mut Record),
    ) {
        for lpi in block.lpis() {
            self.update(platform, lpi, |record| change(lpi, record));
        }
    }

    /// Calls `look` with each record. Records that are added or removed concurrently may be
    /// skipped.
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

    /// Returns the LPIs whose records have memory allocated.
    ///
    /// Context: any.
    pub(super) fn lpis(&self) -> impl Iterator<Item = Lpi> {
        let indices = self.slots.reserved().flatten();
        indices.filter_map(|index| Lpi::from_index(u32::try_from(index).ok()?))
    }

    fn slot(&self, lpi: Lpi) -> Option<&RecordLock> {
        self.slots.get(lpi.index() as usize)
    }
}

/// Consecutive LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LpiBlock {
    pub(super) first: Lpi,
    pub(super) count: NonZeroU16,
}

impl LpiBlock {
    pub(super) const fn one(lpi: Lpi) -> Self {
        Self { first: lpi, count: NonZeroU16::MIN }
    }

    pub(super) const fn of(record: &Record) -> Self {
        Self { first: record.first, count: record.count }
    }

    pub(super) fn lpis(self) -> impl Iterator<Item = Lpi> + Clone + use<> {
        let first = self.first.index();
        (0..u32::from(self.count.get()))
            .filter_map(move |index| first.checked_add(index).and_then(Lpi::from_index))
    }
}

/// Earlier targets of an LPI's message. The number of earlier targets is limited so that the cost
/// of masking does not depend on the number of CPUs.
pub(super) type PreviousTargets = CpuList<3>;

/// Redistributors at which an LPI may be pending, and which must therefore not use an old
/// configuration: those of the target, of the target after the current move, and of earlier ones.
pub(super) type CachedAt = CpuList<5>;

/// Up to `N` CPUs, without duplicates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CpuList<const N: usize>([Option<Cpu>; N]);

impl<const N: usize> CpuList<N> {
    /// No CPU.
    pub(super) const NONE: Self = Self([None; N]);

    /// Returns `true` if the CPU is in the list already or the list has room for it.
    pub(super) fn has_room_for(self, cpu: Cpu) -> bool {
        self.contains(cpu) || self.0.contains(&None)
    }

    /// Adds a CPU. The list must have [room for the CPU](Self::has_room_for).
    pub(super) fn add(&mut self, cpu: Cpu) {
        if !self.contains(cpu)
            && let Some(room) = self.0.iter_mut().find(|entry| entry.is_none())
        {
            *room = Some(cpu);
        }
    }

    pub(super) fn remove(&mut self, cpu: Cpu) {
        *self = self.filter(|other| other != cpu);
    }

    /// Returns the CPUs for which `keep` returns `true`.
    pub(super) fn filter(self, keep: impl Fn(Cpu) -> bool) -> Self {
        Self(self.0.map(|entry| entry.filter(|cpu| keep(*cpu))))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Cpu> {
        self.0.into_iter().flatten()
    }

    pub(super) fn contains(self, cpu: Cpu) -> bool {
        self.0.contains(&Some(cpu))
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

/// Number of CPUs that a set can distinguish.
const BITS: u32 = u64::BITS;

/// A conservative set of CPUs: it contains every CPU that was added, but may also contain other
/// CPUs. CPUs whose numbers are equal modulo 64 share a bit, so the set is exact up to 64 CPUs. On
/// larger machines, the driver clears an LPI at a few more redistributors than necessary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CpuSet(u64);

impl CpuSet {
    /// No CPU.
    pub(super) const NONE: Self = Self(0);
    /// Every CPU.
    pub(super) const ALL: Self = Self(u64::MAX);

    /// Returns the set with a CPU added.
    pub(super) const fn with(self, cpu: Cpu) -> Self {
        Self(self.0 | Self::only(cpu).0)
    }

    /// Returns the set with a CPU removed, or unchanged if a machine with `cpus` CPUs is too large
    /// for the set to distinguish its CPUs.
    pub(super) const fn without(self, cpu: Cpu, cpus: usize) -> Self {
        if cpus <= BITS as usize { Self(self.0 & !Self::only(cpu).0) } else { self }
    }

    /// Returns the union of both sets.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns `true` if the set may contain this CPU.
    pub(super) const fn contains(self, cpu: Cpu) -> bool {
        self.0 & Self::only(cpu).0 != 0
    }

    const fn only(cpu: Cpu) -> Self {
        Self(1 << (cpu.get() % BITS))
    }
}

/// An LPI that the driver resends at a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resend {
    /// The LPI.
    pub hwirq: HwIrq,
    /// The CPU at which the LPI becomes pending.
    pub cpu: Cpu,
    /// The reason, which determines whether a spurious handler run is possible.
    pub reason: ResendReason,
}

/// Reason for resending an LPI, in order of decreasing certainty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResendReason {
    /// [`MsiParent::set_pending`](msi_types::MsiParent::set_pending) requested it.
    Requested,
    /// The LPI was pending at a CPU that went offline, so no spurious handler run is possible.
    Carried,
    /// The driver can't determine whether the LPI was pending at a CPU that went offline or lost
    /// power, or at an earlier target that is no longer recorded. The handler may run once more
    /// often than the device sent messages.
    Unknowable,
}

/// Observer for every LPI that the driver resends.
///
/// Both methods may be called in any context, with interrupts masked and the LPI record's lock
/// held. Implementations must not call the driver.
pub trait ResendObserver: Send + Sync {
    /// Called before the driver writes `GICR_SETLPIR`. The LPI's handler may run from now on.
    fn resending(&self, resend: Resend);

    /// Called after the driver has written `GICR_SETLPIR`.
    fn resent(&self, resend: Resend);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cpu_set_holds_a_cpu_until_removed(
            cpus in prop::collection::btree_set(0u32..200, 1..20),
            out in any::<u32>(),
            machine in 1u32..200,
        ) {
            let out = out % machine;
            let all = cpus.iter().fold(CpuSet::NONE, |set, cpu| set.with(Cpu::new(*cpu)));
            let rest = all.without(Cpu::new(out), machine as usize);
            for cpu in cpus.iter().filter(|cpu| **cpu < machine) {
                prop_assert!(all.contains(Cpu::new(*cpu)) && CpuSet::ALL.contains(Cpu::new(*cpu)));
                prop_assert!(*cpu == out || rest.contains(Cpu::new(*cpu)), "{cpu} lost with {out}");
            }
        }

        #[test]
        fn cpu_set_distinguishes_the_first_64_cpus(cpu in 0u32..64, other in 0u32..64) {
            let set = CpuSet::NONE.with(Cpu::new(cpu));
            prop_assert_eq!(set.contains(Cpu::new(other)), cpu == other);
            prop_assert_eq!(set.without(Cpu::new(cpu), 64), CpuSet::NONE);
        }
    }
}
