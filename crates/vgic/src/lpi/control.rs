//! The command side of the LPI core: the state defined by the guest's commands and registers, and
//! its translation into entries. The command lock protects this state.
//!
//! [`CommandState::refresh`] derives every entry from this state. A command changes the state and
//! refreshes the affected entries. Refreshing an entry twice is harmless.

use super::command_state::{CommandState, Refresh};
use super::config::LpiConfig;
use super::device_entries::DeviceEntries;
use super::entry::Entry;
use super::entry_allocator::Owner;
use super::entry_table::EntryIndex;
use super::fault_recorder::LpiFaults;
use super::rewriting::Rewrites;
use super::shared::{Location, Shared};
use super::sweep::{Cause, Cursor, Meant, OwnCursor, Pause, Settings, Sweep, SweepQueue, Work};
use super::tables::EnabledTables;
use super::translator::TranslatorList;
use crate::monitor::{GuestMemory, Progress};
use crate::wakeup::VcpuWakeup;
use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use doorbell_fallible::OutOfMemory;
use gic_arch::{gicr, gits};

/// State protected by the command lock, for a thread that may change all of it.
pub(crate) struct Control {
    state: CommandState,
    rewrites: Rewrites,
    /// `true` if sweeps started by register writes are in progress.
    left: bool,
}

impl Deref for Control {
    type Target = CommandState;

    fn deref(&self) -> &CommandState {
        &self.state
    }
}

impl DerefMut for Control {
    fn deref_mut(&mut self) -> &mut CommandState {
        &mut self.state
    }
}

impl Control {
    pub(super) fn new(
        config: LpiConfig,
        shared: Arc<Shared>,
        memory: Arc<dyn GuestMemory>,
        faults: LpiFaults,
        wakeup: Arc<VcpuWakeup>,
    ) -> Result<Self, OutOfMemory> {
        let state = CommandState {
            device_entries: DeviceEntries::new(&config, shared.clone())?,
            shared,
            memory,
            faults,
            wakeup,
            config,
            enabled: EnabledTables::new(config.vcpus)?,
            translators: TranslatorList::new(),
            sweeps: SweepQueue::new(),
        };
        let mut control = Self { state, rewrites: Rewrites::new(), left: false };
        control.make_room_for_sweeps()?;
        Ok(control)
    }

    /// Reserves room for all sweeps that the vCPUs, the ITSes and one additional ITS may need.
    pub(super) fn make_room_for_sweeps(&mut self) -> Result<(), OutOfMemory> {
        let CommandState { sweeps, config, translators, .. } = &mut self.state;
        sweeps.reserve(config.vcpus.into(), translators.len() + 1)
    }

    /// Returns the work done so far, which budgets limit: the number of entries visited, plus the
    /// number of entries changed, because a change takes longer than a visit.
    pub(crate) const fn work(&self) -> u64 {
        self.rewrites.work + self.state.device_entries.opened()
    }

    /// Counts entries as visited, or other work that takes as long as visiting this many entries.
    pub(crate) fn count_work(&mut self, entries: u32) {
        self.rewrites.work += u64::from(entries);
    }

    /// Calls [`CommandState::retire`].
    pub(super) fn retire(&mut self, location: Location, old: Entry, new: Entry) {
        let (state, rewrites) = self.parts();
        state.retire(rewrites, location, old, new);
    }

    /// Calls [`CommandState::refresh`].
    pub(super) fn refresh(
        &mut self,
        location: Location,
        settings: Settings,
    ) -> Result<(), OutOfMemory> {
        let (state, rewrites) = self.parts();
        state.refresh(rewrites, location, settings)
    }

    /// Calls [`CommandState::write`].
    pub(super) fn write(&mut self, location: Location, refresh: Refresh) {
        let (state, rewrites) = self.parts();
        state.write(rewrites, location, refresh);
    }

    /// Calls [`CommandState::take_own`].
    pub(super) fn take_own(&mut self, vcpu: u32, index: u32) -> bool {
        let (state, rewrites) = self.parts();
        state.take_own(rewrites, vcpu, index)
    }

    /// Calls [`CommandState::clear`].
    pub(super) fn clear(&mut self, location: Location) -> bool {
        let (state, rewrites) = self.parts();
        state.clear(rewrites, location)
    }

    /// Checks that an LPI's state is known: unless the LPI is pending regardless, it isn't in a
    /// list register. Otherwise, recalls the vCPU. If a command has moved the LPI since it was
    /// listed, another vCPU has it, which the command has already recalled.
    ///
    /// # Errors
    /// [`Pause::Listed`] until the recalled vCPU has exited.
    pub(super) fn ensure_folded(&mut self, location: Location) -> Result<(), Pause> {
        loop {
            let entry = self.shared.load(location);
            if !entry.awaits_fold() {
                return Ok(());
            }
            self.recall(entry);
            if self.awaits(self.recalls()) {
                return Err(Pause::Listed);
            }
            // No recall is outstanding, so the LPI was folded after we loaded the entry.
        }
    }

    /// Changes an existing entry once its LPI's state [is known](Self::ensure_folded). Returns the
    /// previous value.
    ///
    /// # Errors
    /// [`Pause::Listed`] until the recalled vCPU has exited. The entry is unchanged.
    pub(super) fn update_folded(
        &mut self,
        location: Location,
        change: impl Fn(Entry) -> Entry,
    ) -> Result<Entry, Pause> {
        loop {
            let known = |entry: Entry| (!entry.awaits_fold()).then(|| change(entry));
            if let Some(old) = self.shared.try_update(location, known) {
                self.retire(location, old, change(old));
                return Ok(old);
            }
            self.ensure_folded(location)?;
        }
    }

    /// Records whether sweeps started by register writes are in progress.
    pub(super) fn note_registers(&mut self) {
        let progress = Progress::done(!self.sweeps.has_register_work());
        self.state.wakeup.note_work(&mut self.left, progress);
    }

    /// Returns `true` if no sweep is in progress, and none is recorded as in progress.
    pub(super) const fn is_settled(&self) -> bool {
        self.state.sweeps.is_empty() && !self.left
    }

    /// Returns the state that commands have defined.
    pub(super) const fn state(&self) -> &CommandState {
        &self.state
    }

    /// Returns the state that commands have defined, and the record of rewritten entries.
    pub(super) const fn parts(&mut self) -> (&CommandState, &mut Rewrites) {
        (&self.state, &mut self.rewrites)
    }

    /// Visits every entry that has an owner, in a single pass.
    pub(super) fn sweep(&mut self, mut each: impl FnMut(&mut Self, EntryIndex)) {
        for chunk in 0..self.device_entries.allocator.chunk_count() {
            for index in self.device_entries.allocator.entries_in_use(chunk) {
                if self.device_entries.allocator.owner(index) != Owner::Nobody {
                    self.rewrites.work += 1;
                    each(self, index);
                }
            }
        }
    }

    /// Makes an event pending, or, if its target's LPIs are disabled, records that it becomes
    /// pending when they are enabled.
    pub(super) fn pend_event(&mut self, event: Location) -> Result<(), OutOfMemory> {
        if let Some(refresh) = self.prepared(event, Settings::Keep)? {
            self.pend(event, refresh);
        }
        Ok(())
    }

    /// Makes a [prepared](Self::prepare) entry pending, or, if its target's LPIs are disabled,
    /// records that it becomes pending when they are enabled.
    pub(super) fn pend(&mut self, location: Location, refresh: Refresh) {
        self.shared.update(location, |entry| entry.with_held(true));
        self.write(location, refresh);
    }

    /// Returns a cursor over all chunks in use.
    pub(super) fn all_chunks(&self) -> Cursor {
        Cursor { next: 0, end: self.device_entries.allocator.chunk_count() }
    }

    /// Starts a sweep. A sweep with the same cause is replaced, because the new sweep also covers
    /// its entries. A command's sweep is an exception: its ITS delays the next command until the
    /// sweep is done, or we finish the sweep here first.
    pub(super) fn start(&mut self, cause: Cause, sweep: Sweep) {
        if cause.is_commands() {
            let _ = self.advance(cause, u64::MAX);
        }
        self.sweeps.insert(cause, Work { sweep, pause: None });
    }

    /// Starts to refresh entries.
    pub(super) fn start_refresh(&mut self, cause: Cause, meant: Meant) {
        let cursor = self.all_chunks();
        self.start(cause, Sweep::Refresh { cursor, meant });
    }

    /// Starts to reread the configuration of every LPI at a redistributor.
    pub(super) fn start_invalidation(&mut self, cause: Cause, vcpu: u32) {
        let (cursor, own) = (self.all_chunks(), OwnCursor::START);
        self.start(cause, Sweep::Invalidate { cursor, own, vcpu });
    }

    /// Advances a sweep until it is done or [`work`](Self::work) reaches `limit`. Returns `true` if
    /// it is done.
    ///
    /// # Errors
    /// The sweep has paused. It can be resumed later.
    pub(super) fn advance(&mut self, cause: Cause, limit: u64) -> Result<bool, Pause> {
        let Some(mut work) = self.sweeps.remove(cause) else { return Ok(true) };
        let result = work.sweep.advance(self, limit);
        if result == Ok(true) {
            work.sweep.finish(self);
            self.publish(cause);
            return result;
        }
        let before = core::mem::replace(&mut work.pause, result.err());
        if work.pause == Some(Pause::OutOfMemory) && work.pause != before {
            self.record_starved(cause);
        }
        self.sweeps.insert(cause, work);
        result
    }

    /// Publishes that messages are accepted, after a sweep that enables LPIs or an ITS.
    fn publish(&mut self, done: Cause) {
        match done {
            Cause::Enable(vcpu) => self.set_tables(vcpu, self.enabled.get(vcpu)),
            Cause::Admit(its) => {
                self.translators.get(its).into_iter().for_each(|its| its.publish(true));
            }
            _ => {}
        }
    }

    /// Records that a request made by a register write failed for lack of heap memory.
    fn record_starved(&self, cause: Cause) {
        let tables = gits::BASER.info("BASER");
        let (its, register) = match cause {
            Cause::Teardown(its) => (its, tables.offset),
            Cause::Resettle(its) | Cause::Admit(its) => (its, gits::CTLR.offset()),
            Cause::Command(its) => (its, gits::CREADR.offset()),
            Cause::Enable(vcpu) | Cause::Disable(vcpu) => {
                return self.faults.starved_redistributor(vcpu, gicr::CTLR.offset());
            }
            Cause::Invalidate(vcpu) => {
                return self.faults.starved_redistributor(vcpu, gicr::INVALLR.offset());
            }
        };
        if let Some(translator) = self.translators.get(its) {
            self.faults.starved((translator.frame, register));
        }
    }

    /// Advances the sweeps started by register writes at any redistributor or ITS. Returns `true`
    /// if none of these sweeps can make further progress.
    pub(crate) fn advance_registers(&mut self, limit: u64) -> bool {
        self.advance_all(limit, |cause| !cause.is_commands())
    }

    /// Runs every sweep to its end.
    ///
    /// # Errors
    /// The heap is exhausted, or a vCPU runs with LPIs in list registers, and a sweep remains
    /// unfinished.
    pub(crate) fn finish_sweeps(&mut self) -> Result<(), OutOfMemory> {
        self.advance_all(u64::MAX, |_| true);
        self.note_registers();
        if self.sweeps.is_empty() { Ok(()) } else { Err(OutOfMemory) }
    }

    fn advance_all(&mut self, limit: u64, is_meant: impl Fn(Cause) -> bool) -> bool {
        let mut last = None;
        while let Some(cause) = self.sweeps.next(last, &is_meant) {
            // A sweep that reads or writes a pending table may exceed the limit as it ends.
            if self.work() >= limit || self.advance(cause, limit) == Ok(false) {
                return false;
            }
            last = Some(cause);
        }
        true
    }
}
