//! A sweep updates all entries that a command or register write affects, in bounded pieces. This
//! module holds a sweep's cause, task and progress as plain data; `sweep_steps` carries sweeps out.

use super::entry_allocator::Owner;
use super::entry_table::EntryIndex;
use super::itt_teardown::IttTeardown;
use super::mapping::ItsIndex;
use super::tables::{LpiTables, PendingBits};
use crate::monitor::MemoryFault;
use doorbell_fallible::{OutOfMemory, SortedMap};
use gic_arch::Lpi;
use gic_arch::lpi::Config;

/// Cause of a sweep. At most one sweep per cause is in progress at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cause {
    /// An ITS's device table was removed, so its devices must be unmapped.
    Teardown(ItsIndex),
    /// An ITS was disabled, or its collection table was removed.
    Resettle(ItsIndex),
    /// An ITS was enabled.
    Admit(ItsIndex),
    /// A command was executed at an ITS.
    Command(ItsIndex),
    /// `GICR_CTLR.EnableLPIs` of a vCPU's redistributor was set.
    Enable(u32),
    /// `GICR_CTLR.EnableLPIs` of a vCPU's redistributor was cleared.
    Disable(u32),
    /// `GICR_INVLPIR` or `GICR_INVALLR` of a vCPU's redistributor was written.
    Invalidate(u32),
}

impl Cause {
    pub(super) const fn is_commands(self) -> bool {
        matches!(self, Self::Command(_))
    }
}

/// Chunks that were in use when a sweep began and that it hasn't visited yet. Chunks allocated
/// later don't have to be visited, because their entries are derived from the current state.
pub(super) struct Cursor {
    pub(super) next: u32,
    pub(super) end: u32,
}

/// A redistributor's own LPIs that a sweep hasn't visited yet.
pub(super) struct OwnCursor {
    /// Index of the first such LPI.
    pub(super) next: u32,
    /// `true` if a table could not be read. Only one fault is recorded for the whole sweep.
    pub(super) is_unreadable: bool,
}

impl OwnCursor {
    /// Cursor that hasn't visited any LPI yet.
    pub(super) const START: Self = Self { next: 0, is_unreadable: false };
}

/// A sweep in progress.
pub(super) struct Work {
    pub(super) sweep: Sweep,
    /// Reason why the sweep could not continue.
    pub(super) pause: Option<Pause>,
}

/// Reason why a sweep cannot continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pause {
    /// The heap is exhausted.
    OutOfMemory,
    /// An LPI is in a list register, so it is unknown whether it is still pending. Its vCPU was
    /// recalled. Once the vCPU has exited, the sweep is deferred work.
    Listed,
}

impl From<OutOfMemory> for Pause {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Sweeps in progress. Has capacity for one sweep per [`Cause`].
pub(super) struct SweepQueue(SortedMap<Cause, Work>);

impl SweepQueue {
    pub(super) const fn new() -> Self {
        Self(SortedMap::new())
    }

    /// Reserves room for all sweeps that this many vCPUs and ITSes may need.
    pub(super) fn reserve(&mut self, vcpus: usize, its: usize) -> Result<(), OutOfMemory> {
        Ok(self.0.reserve_many(Cause::PER_VCPU * vcpus + Cause::PER_ITS * its)?)
    }

    /// Adds a sweep. A sweep with the same cause is replaced.
    pub(super) fn insert(&mut self, cause: Cause, work: Work) {
        self.0.insert(cause, work);
    }

    /// Removes a sweep.
    pub(super) fn remove(&mut self, cause: Cause) -> Option<Work> {
        self.0.remove(cause)
    }

    /// Removes a sweep without finishing it, and returns the unfinished sweep.
    pub(super) fn abandon(&mut self, cause: Cause) -> Option<Sweep> {
        self.remove(cause).map(|work| work.sweep)
    }

    /// Returns `true` if no sweep for this ITS is in progress.
    pub(super) fn is_quiescent(&self, its: ItsIndex) -> bool {
        self.is_empty() || Cause::of_its(its).into_iter().all(|cause| !self.contains(cause))
    }

    /// Returns `true` if a sweep with this cause is in progress.
    pub(super) fn contains(&self, cause: Cause) -> bool {
        // Most commands find no sweep in progress.
        !self.0.is_empty() && self.0.contains(cause)
    }

    /// Returns `true` if a sweep with this cause waits for heap memory.
    pub(super) fn is_starved(&self, cause: Cause) -> bool {
        self.0.get(cause).is_some_and(|work| work.pause == Some(Pause::OutOfMemory))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first cause after `last` for which `is_meant` returns `true`.
    pub(super) fn next(
        &self,
        last: Option<Cause>,
        is_meant: impl Fn(Cause) -> bool,
    ) -> Option<Cause> {
        let mut causes = self.0.iter().map(|(cause, _)| cause);
        causes.find(|cause| is_meant(*cause) && last.is_none_or(|last| *cause > last))
    }

    /// Returns `true` if sweeps that register writes started are in progress, other than paused
    /// sweeps.
    pub(super) fn has_register_work(&self) -> bool {
        self.0.iter().any(|(cause, work)| !cause.is_commands() && work.pause.is_none())
    }
}

impl Cause {
    /// Number of causes for each ITS.
    pub(super) const PER_ITS: usize = 4;
    /// Number of causes for each vCPU.
    pub(super) const PER_VCPU: usize = 3;

    /// Returns the causes of an ITS, in the order in which their sweeps are advanced.
    pub(super) const fn of_its(its: ItsIndex) -> [Self; Self::PER_ITS] {
        [Self::Teardown(its), Self::Resettle(its), Self::Admit(its), Self::Command(its)]
    }
}

/// Task of a sweep.
pub(super) enum Sweep {
    /// Refreshes entries. Reads an LPI's configuration only if its entry becomes deliverable.
    Refresh { cursor: Cursor, meant: Meant },
    /// Rereads the configurations of all LPIs that target a vCPU.
    Invalidate { cursor: Cursor, own: OwnCursor, vcpu: u32 },
    /// Changes the entries of the events of one LPI, starting at entry `next`.
    ForLpi { lpi: Lpi, next: Option<EntryIndex>, change: LpiChange },
    /// Executes MOVALL.
    MoveAll { cursor: Cursor, own: OwnCursor, from: u32, to: u32 },
    /// Releases the entries in `teardown`, then unmaps all devices starting at DeviceID `devices`,
    /// if given.
    Unmap { its: ItsIndex, devices: Option<u32>, teardown: IttTeardown },
    /// Makes the LPIs that are set in the pending table pending. `next` is the first LPI index not
    /// yet examined.
    Enable { cursor: Cursor, own: OwnCursor, vcpu: u32, pending: PendingBits, next: u32 },
    /// Writes pending LPIs to the pending table.
    Disable { cursor: Cursor, own: OwnCursor, vcpu: u32, tables: LpiTables, pending: PendingBits },
}

/// Change of the entries of one LPI's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LpiChange {
    /// Rereads the configuration.
    Reload,
    /// Rereads the configuration of events that target a vCPU.
    ReloadAt(u32),
    /// Clears the pending state of events that target a vCPU.
    ClearAt(u32),
}

/// Result of visiting a block of own LPIs. The outer error means that the block must be visited
/// again; the inner error means that its configuration could not be read.
pub(super) type Visited<E> = Result<Result<(), MemoryFault>, E>;

/// Set of entries that a refresh affects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meant {
    /// All events of an ITS.
    Its(u16),
    /// All events of a collection.
    Collection { its: u16, collection: u16 },
}

impl Meant {
    /// Returns `true` if the set contains the entries of this owner.
    pub(super) fn contains(self, owner: Owner) -> bool {
        match (self, owner) {
            (Self::Its(its), Owner::Event { its: of, .. }) => its == of,
            (Self::Collection { its, collection }, owner) => {
                owner == Owner::Event { its, collection }
            }
            (Self::Its(_), Owner::Nobody) => false,
        }
    }
}

/// Source of the enable bit and the priority in a refresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settings {
    /// The entry, or memory if the entry becomes deliverable.
    Keep,
    /// Memory.
    Reload,
    /// This configuration, which was just read from memory.
    Read(Config),
    /// The entry.
    Given,
}
