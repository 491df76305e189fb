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
use super::sweep::{Pause, Settings, SweepQueue};
use super::tables::EnabledTables;
use super::translator::TranslatorList;
use crate::monitor::memory::GuestMemory;
use crate::monitor::progress::Progress;
use crate::wakeup::VcpuWakeup;
use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use doorbell_fallible::OutOfMemory;

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
        for chunk in 0..self.device_entries.chunk_count() {
            for index in self.device_entries.entries_in_use(chunk) {
                if self.device_entries.owner(index) != Owner::Nobody {
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
}
