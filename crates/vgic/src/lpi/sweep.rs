//! One sweep: its cause, what it does to which entries, and how far it came. A sweep is data;
//! `sweep_steps` carries it out.

use super::entry_table::EntryIndex;
use super::itt_teardown::IttTeardown;
use super::mapping::ItsIndex;
use super::tables::{LpiTables, PendingBits};
use crate::monitor::memory::MemoryFault;
use doorbell_fallible::{OutOfMemory, SortedMap};
use gic_arch::Lpi;
use gic_arch::lpi::Config;

/// The cause of a sweep. There is one sweep at a time for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cause {
    /// A device table was taken away: its devices are unmapped.
    Teardown(ItsIndex),
    /// An ITS was disabled, or lost its collections.
    Resettle(ItsIndex),
    /// An ITS was enabled.
    Admit(ItsIndex),
    /// A command of an ITS.
    Command(ItsIndex),
    /// `GICR_CTLR.EnableLPIs` of a vCPU's redistributor was set.
    Enable(u32),
    /// It was cleared.
    Disable(u32),
    /// `GICR_INVLPIR` or `GICR_INVALLR` of a vCPU's redistributor.
    Invalidate(u32),
}

impl Cause {
    pub(super) const fn is_commands(self) -> bool {
        matches!(self, Self::Command(_))
    }
}

/// The chunks that a sweep has still to visit: those that were in use when it began. Later ones
/// were filled from the state as it is.
pub(super) struct Cursor {
    pub(super) next: u32,
    pub(super) end: u32,
}

/// The own LPIs of a redistributor that a sweep has still to visit.
pub(super) struct OwnCursor {
    /// The index of the first one.
    pub(super) next: u32,
    /// Was a table found that cannot be read? One fault is recorded for all of it.
    pub(super) is_unreadable: bool,
}

impl OwnCursor {
    /// All are still to be visited.
    pub(super) const START: Self = Self { next: 0, is_unreadable: false };
}

/// Work in progress.
pub(super) struct Work {
    pub(super) sweep: Sweep,
    /// It could not go on because the heap has no memory left.
    pub(super) is_starved: bool,
}

/// The sweeps in progress. There is room for one of each [`Cause`] from the beginning.
pub(super) struct SweepQueue(SortedMap<Cause, Work>);

impl SweepQueue {
    pub(super) const fn new() -> Self {
        Self(SortedMap::new())
    }

    /// Makes room for all sweeps of so many vCPUs and ITSes.
    pub(super) fn reserve(&mut self, vcpus: usize, its: usize) -> Result<(), OutOfMemory> {
        Ok(self.0.reserve_many(Cause::PER_VCPU * vcpus + Cause::PER_ITS * its)?)
    }

    /// Adds a sweep; one for the same cause is replaced.
    pub(super) fn insert(&mut self, cause: Cause, work: Work) {
        self.0.insert(cause, work);
    }

    /// Takes a sweep out.
    pub(super) fn remove(&mut self, cause: Cause) -> Option<Work> {
        self.0.remove(cause)
    }

    /// Takes out what is left of a sweep, which is not carried on.
    pub(super) fn abandon(&mut self, cause: Cause) -> Option<Sweep> {
        self.remove(cause).map(|work| work.sweep)
    }

    /// Returns true if no sweep of this ITS is in progress.
    pub(super) fn is_quiescent(&self, its: ItsIndex) -> bool {
        self.is_empty() || Cause::of_its(its).into_iter().all(|cause| !self.contains(cause))
    }

    /// Is a sweep for this cause going on?
    pub(super) fn contains(&self, cause: Cause) -> bool {
        self.0.contains(cause)
    }

    /// Does a sweep for this cause wait for memory on the heap?
    pub(super) fn is_starved(&self, cause: Cause) -> bool {
        self.0.get(cause).is_some_and(|work| work.is_starved)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first cause after `last` that is meant.
    pub(super) fn next(
        &self,
        last: Option<Cause>,
        is_meant: impl Fn(Cause) -> bool,
    ) -> Option<Cause> {
        let mut causes = self.0.iter().map(|(cause, _)| cause);
        causes.find(|cause| is_meant(*cause) && last.is_none_or(|last| *cause > last))
    }

    /// Do registers' sweeps go on, other than those that wait for memory?
    pub(super) fn has_register_work(&self) -> bool {
        self.0.iter().any(|(cause, work)| !cause.is_commands() && !work.is_starved)
    }
}

impl Cause {
    /// Number of causes for each ITS.
    pub(super) const PER_ITS: usize = 4;
    /// Number of causes for each vCPU.
    pub(super) const PER_VCPU: usize = 3;

    /// The causes of an ITS, in the order in which their sweeps are carried on.
    pub(super) const fn of_its(its: ItsIndex) -> [Self; Self::PER_ITS] {
        [Self::Teardown(its), Self::Resettle(its), Self::Admit(its), Self::Command(its)]
    }
}

/// The task of a sweep.
pub(super) enum Sweep {
    /// Entries are refreshed.
    Refresh { cursor: Cursor, own: OwnCursor, meant: Meant, settings: Settings },
    /// The entries of one LPI are refreshed at a vCPU, from this one on.
    InvalidateLpi { vcpu: u32, lpi: Lpi, next: Option<EntryIndex> },
    /// MOVALL.
    MoveAll { cursor: Cursor, own: OwnCursor, from: u32, to: u32 },
    /// Entries are taken back, then devices are unmapped from this DeviceID on, if there is one.
    Unmap { its: ItsIndex, devices: Option<u32>, teardown: IttTeardown },
    /// LPIs whose bit is set in the pending table become pending; `next` is the first LPI index
    /// that was not looked at.
    Enable { cursor: Cursor, own: OwnCursor, vcpu: u32, pending: PendingBits, next: u32 },
    /// Pending LPIs go into the pending table.
    Disable { cursor: Cursor, own: OwnCursor, vcpu: u32, tables: LpiTables, pending: PendingBits },
}

/// The result of a visit to a block of own LPIs: was it visited, and its configuration readable?
pub(super) type Visited = Result<Result<(), MemoryFault>, OutOfMemory>;

/// The entries that a sweep is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meant {
    /// Events of an ITS.
    Its(u16),
    /// Events of a collection.
    Collection { its: u16, collection: u16 },
    /// All that target a vCPU.
    Target(u32),
}

/// The source of enable and priority in a refresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settings {
    /// From the entry, unless it becomes deliverable: then from memory.
    Keep,
    /// From memory.
    Reload,
    /// These, from memory.
    Read(Config),
    /// From the entry.
    Given,
}
