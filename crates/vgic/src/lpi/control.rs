//! The command side of the LPI core: the state defined by the guest's commands and registers, and
//! its translation into entries. One lock, the command lock, protects this state.
//!
//! [`Control::refresh`] derives every entry from this state. A command changes the state and
//! refreshes the affected entries. Refreshing an entry twice is harmless.

use super::config::LpiConfig;
use super::device_entries::DeviceEntries;
use super::entry::{Entry, Level};
use super::entry_allocator::Owner;
use super::entry_table::{EntryIndex, Position};
use super::fault_recorder::LpiFaults;
use super::injection::Injection;
use super::itt::EntryRef;
use super::mapping::ItsIndex;
use super::shared::{Location, Shared};
use super::sweep::{Cause, Pause, Settings, SweepQueue};
use super::tables::{EnabledTables, LpiTables};
use super::translator::TranslatorList;
use crate::monitor::memory::GuestMemory;
use crate::monitor::progress::Progress;
use crate::wakeup::{Recalls, VcpuWakeup};
use alloc::boxed::Box;
use alloc::sync::Arc;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::lpi::Config;
use gic_arch::{Lpi, gicr};
use msi_types::Cpu;

/// State protected by the command lock.
pub(crate) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<dyn GuestMemory>,
    pub(super) faults: LpiFaults,
    wakeup: Arc<VcpuWakeup>,
    pub(super) config: LpiConfig,
    pub(super) device_entries: DeviceEntries,
    pub(super) enabled: EnabledTables,
    pub(super) translators: TranslatorList,
    pending_kicks: PendingKicks,
    /// `true` if sweeps started by register writes are in progress.
    left: bool,
    pub(super) sweeps: SweepQueue,
    work: u64,
    /// The last entries that a command changed before a message had set their ready bits, as they
    /// were before the change.
    overtaken: [Option<(Location, Entry)>; OVERTAKEN],
    next_overtaken: usize,
}

/// Number of overtaken messages to remember. A message that is delayed until this many others have
/// been overtaken leaves a stale ready bit, so each sender can leave one.
pub(super) const OVERTAKEN: usize = 16;

/// Returns the vCPU and level at which an entry has its ready bit.
fn place(entry: Entry) -> (u32, Level) {
    (entry.target(), entry.level())
}

/// An interrupt's route.
#[derive(Clone, Copy)]
pub(super) struct Route {
    /// The target vCPU.
    target: u32,
    /// `true` if the event and its collection are mapped.
    is_mapped: bool,
    /// `true` if the ITS accepts messages.
    is_open: bool,
}

impl Route {
    /// Returns the target vCPU.
    pub(super) const fn target(self) -> u32 {
        self.target
    }

    /// Returns `true` if the ITS accepts messages.
    pub(super) const fn is_open(self) -> bool {
        self.is_open
    }
}

/// An entry's next value, for which all memory has been allocated.
#[derive(Clone, Copy)]
pub(super) struct Refresh {
    route: Route,
    enabled: bool,
    level: Level,
    deliverable: bool,
    /// `true` if the LPI is within the target's tables.
    is_covered: bool,
    reloads: bool,
}

/// vCPUs to kick once the command lock is released.
struct PendingKicks {
    vcpus: Box<[u64]>,
    /// `true` if a bit may be set in `vcpus`.
    is_any: bool,
}

impl PendingKicks {
    fn new(vcpus: u16) -> Result<Self, OutOfMemory> {
        let vcpus = try_boxed_slice(core::iter::repeat_n(0, usize::from(vcpus).div_ceil(64)))?;
        Ok(Self { vcpus, is_any: false })
    }

    fn insert(&mut self, vcpu: u32) {
        if let Some(bits) = self.vcpus.get_mut((vcpu / 64) as usize) {
            *bits |= 1 << (vcpu % 64);
            self.is_any = true;
        }
    }

    fn pop(&mut self) -> Option<u32> {
        let mut vcpus = self.vcpus.iter_mut().zip((0..).step_by(64));
        let Some((bits, base)) = vcpus.find(|(bits, _)| **bits != 0) else {
            self.is_any = false;
            return None;
        };
        let bit = bits.trailing_zeros();
        *bits &= *bits - 1;
        Some(base + bit)
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
        let mut control = Self {
            device_entries: DeviceEntries::new(&config, shared.clone())?,
            shared,
            memory,
            faults,
            wakeup,
            config,
            enabled: EnabledTables::new(config.vcpus)?,
            translators: TranslatorList::new(),
            pending_kicks: PendingKicks::new(config.vcpus)?,
            left: false,
            sweeps: SweepQueue::new(),
            work: 0,
            overtaken: [None; OVERTAKEN],
            next_overtaken: 0,
        };
        control.make_room_for_sweeps()?;
        Ok(control)
    }

    /// Reserves room for all sweeps that the vCPUs, the ITSes and one additional ITS may need.
    pub(super) fn make_room_for_sweeps(&mut self) -> Result<(), OutOfMemory> {
        self.sweeps.reserve(self.config.vcpus.into(), self.translators.len() + 1)
    }

    /// Returns `true` if a vCPU must be kicked.
    pub(super) const fn has_kicks(&self) -> bool {
        self.pending_kicks.is_any
    }

    /// Removes and returns one vCPU that must be kicked.
    pub(super) fn pop_kick(&mut self) -> Option<u32> {
        self.pending_kicks.pop()
    }

    /// Returns the work done so far, which budgets limit: the number of entries visited, plus the
    /// number of entries changed, because a change takes longer than a visit.
    pub(crate) const fn work(&self) -> u64 {
        self.work + self.device_entries.opened()
    }

    /// Counts entries as visited, or other work that takes as long as visiting this many entries.
    pub(super) fn count_work(&mut self, entries: u32) {
        self.work += u64::from(entries);
    }

    /// Returns the guest memory, which holds the tables and commands.
    pub(crate) fn memory(&self) -> &dyn GuestMemory {
        &*self.memory
    }

    /// Returns `true` if the distributor implements this LPI.
    pub(crate) fn implements(&self, lpi: Lpi) -> bool {
        u64::from(lpi.get()) < 1 << self.config.id_bits
    }

    pub(super) fn set_ready_bit(&mut self, written: Entry, position: Position) {
        if let Some(vcpu) = self.shared.set_ready_bit(written, position) {
            self.pending_kicks.insert(vcpu);
        }
    }

    /// Completes a change of an entry for the vCPU that `old` targets: recalls the LPI from a list
    /// register, and clears the ready bit if `new` is not ready there. Otherwise, the vCPU would
    /// have to look at each of these entries before it finds the next ready one. If `new` is
    /// ready, callers must set its ready bit.
    pub(super) fn retire(&mut self, location: Location, old: Entry, new: Entry) {
        self.work += u64::from(old != new);
        self.recall(old);
        if !old.is_ready() || (new.is_ready() && place(new) == place(old)) {
            return;
        }
        if !self.clear_ready_bit(location, old) {
            self.clear_stale_bits();
            self.overtaken[self.next_overtaken] = Some((location, old));
            self.next_overtaken = (self.next_overtaken + 1) % OVERTAKEN;
        }
        // A message may have made the entry ready again before its bit was cleared.
        let now = self.shared.load(location);
        if now.is_ready() && !new.is_ready() {
            self.set_ready_bit(now, self.shared.position(location));
        }
    }

    /// Clears an entry's ready bit where it was ready before a change. Returns `false` if the bit
    /// was not set: a message that has not set it yet may do so later. Callers must check the entry
    /// afterwards.
    fn clear_ready_bit(&mut self, location: Location, old: Entry) -> bool {
        let cleared = self.shared.clear_ready_bit(old, self.shared.position(location));
        if cleared.is_some_and(|cleared| cleared.hid_others) {
            self.pending_kicks.insert(old.target());
        }
        cleared.is_none_or(|cleared| cleared.was_set)
    }

    /// Clears the ready bits that overtaken messages have set since. Without this, a guest could
    /// collect stale bits at a vCPU that doesn't look at them, and its next entry would visit all.
    fn clear_stale_bits(&mut self) {
        for index in 0..OVERTAKEN {
            let Some((location, old)) = self.overtaken[index] else { continue };
            let is_ready = |entry: Entry| entry.is_ready() && place(entry) == place(old);
            if is_ready(self.shared.load(location)) {
                continue;
            }
            if self.clear_ready_bit(location, old) {
                self.overtaken[index] = None;
            }
            let now = self.shared.load(location);
            if is_ready(now) {
                self.set_ready_bit(now, self.shared.position(location));
            }
        }
    }

    /// Recalls the vCPU that has a changed entry's LPI in a list register, if any. `old` is the
    /// entry before the change.
    pub(super) fn recall(&mut self, old: Entry) {
        if old.is_listed() && self.wakeup.recall(Cpu::new(old.target())) {
            self.pending_kicks.insert(old.target());
        }
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
        self.wakeup.note_work(&mut self.left, progress);
    }

    /// Returns all recalls requested so far.
    pub(crate) fn recalls(&self) -> Recalls {
        self.wakeup.recalls()
    }

    /// Returns `true` if one of the recalled interrupts may still be in a list register.
    pub(crate) fn awaits(&self, recalls: Recalls) -> bool {
        self.wakeup.awaits(recalls)
    }

    /// Injects a message sent by a command.
    pub(super) fn inject(&mut self, found: EntryRef) -> Injection {
        match self.shared.set_pending(found) {
            None => Injection::Dropped,
            Some(seen) if seen.is_pending() => Injection::Coalesced,
            Some(seen) => {
                self.set_ready_bit(seen.with_pending(true), found.position);
                Injection::Fresh
            }
        }
    }

    /// Visits every entry that has an owner, in a single pass.
    pub(super) fn sweep(&mut self, mut each: impl FnMut(&mut Self, EntryIndex)) {
        for chunk in 0..self.device_entries.chunk_count() {
            for index in self.device_entries.entries_in_use(chunk) {
                if self.device_entries.owner(index) != Owner::Nobody {
                    self.work += 1;
                    each(self, index);
                }
            }
        }
    }

    /// Updates an entry to match the command state.
    ///
    /// # Errors
    /// There is no memory for the entry's ready bit. The entry is unchanged.
    pub(super) fn refresh(
        &mut self,
        location: Location,
        settings: Settings,
    ) -> Result<(), OutOfMemory> {
        if let Some(refresh) = self.prepared(location, settings)? {
            self.write(location, refresh);
        }
        Ok(())
    }

    /// Prepares an entry's next value, or returns `None` if the entry is unmapped.
    ///
    /// # Errors
    /// There is no memory for the entry's ready bit.
    pub(super) fn prepared(
        &self,
        location: Location,
        settings: Settings,
    ) -> Result<Option<Refresh>, OutOfMemory> {
        let now = self.shared.load(location);
        let Some(route) = self.route_of(location, now) else { return Ok(None) };
        self.prepare(location, now, route, settings).map(Some)
    }

    /// Prepares an entry's next value, based on `now` and routed along `route`.
    ///
    /// # Errors
    /// There is no memory for the entry's ready bit.
    pub(super) fn prepare(
        &self,
        location: Location,
        now: Entry,
        route: Route,
        settings: Settings,
    ) -> Result<Refresh, OutOfMemory> {
        let Route { target, is_open, .. } = route;
        let covering = self.enabled.get(target).filter(|tables| tables.covers(now.lpi()));
        let deliverable = is_open && covering.is_some();
        let (enabled, level) = match (covering, settings) {
            (Some(tables), Settings::Reload) => self.settings(target, &tables, now.lpi()),
            (Some(tables), Settings::Keep) if deliverable && !now.is_deliverable() => {
                self.settings(target, &tables, now.lpi())
            }
            (Some(_), Settings::Read(config)) => self.settings_of(config),
            _ => (now.is_enabled(), now.level()),
        };
        if enabled {
            self.shared.ensure_ready_bit(target, level, self.shared.position(location))?;
        }
        let reloads = matches!(settings, Settings::Reload | Settings::Read(_));
        Ok(Refresh { route, enabled, level, deliverable, is_covered: covering.is_some(), reloads })
    }

    /// Returns `true` if refreshing an entry within its target's tables would not change it.
    pub(super) fn is_current(&self, now: Entry, route: Route, config: Config) -> bool {
        let Route { target, is_mapped, is_open } = route;
        let (enabled, level) = self.settings_of(config);
        let next = now.with_target(target).with_level(level).with_enabled(enabled);
        now == next.with_mapped(is_mapped).with_deliverable(is_open).with_held(false)
    }

    /// Writes a prepared value to an entry.
    pub(super) fn write(&mut self, location: Location, refresh: Refresh) {
        let Refresh { route, enabled, level, deliverable, is_covered, reloads } = refresh;
        let lpi_index = self.shared.load(location).lpi_index();
        let is_event = matches!(location, Location::Event(_));
        let brought = is_event && self.take_own(route.target, lpi_index);
        let (old, new) = self.shared.update(location, |entry| {
            let kept = entry
                .with_target(route.target)
                .with_level(level)
                .with_enabled(enabled)
                .with_mapped(route.is_mapped)
                .with_deliverable(deliverable);
            if is_covered {
                kept.with_pending(entry.is_pending() || entry.is_held() || brought).with_held(false)
            } else if entry.awaits_fold() && !brought {
                // If folding makes the LPI pending, it isn't ready until it is enabled again.
                kept.with_enabled(false)
            } else {
                kept.cleared().with_held(entry.is_pending_or_held() || brought)
            }
        });
        if old != new {
            self.retire(location, old, new);
        }
        if old != new || reloads {
            self.set_ready_bit(new, self.shared.position(location));
        }
    }

    /// Returns the route for an entry's interrupt, or `None` if the entry is unmapped.
    pub(super) fn route_of(&self, location: Location, now: Entry) -> Option<Route> {
        let index = match location {
            Location::Own { vcpu, index } => {
                let has_entry = self.shared.own(vcpu)?.has(index);
                return has_entry.then_some(Route { target: vcpu, is_mapped: true, is_open: true });
            }
            Location::Event(index) => index,
        };
        let Owner::Event { its, collection } = self.device_entries.owner(index) else {
            return None;
        };
        self.route_of_event(ItsIndex::new(its), collection, now)
    }

    /// Returns the route for an event in this collection. If the collection isn't mapped, the
    /// interrupt's target doesn't change, because the interrupt may be pending there.
    pub(super) fn route_of_event(
        &self,
        its: ItsIndex,
        collection: u16,
        now: Entry,
    ) -> Option<Route> {
        let translator = self.translators.get(its)?;
        let vcpu = translator.collection(collection);
        let is_going = self.sweeps.contains(Cause::Teardown(its));
        let is_mapped = vcpu.is_some() && !is_going;
        Some(Route {
            target: vcpu.map_or(now.target(), u32::from),
            is_mapped,
            is_open: is_mapped && translator.enabled,
        })
    }

    /// Reads an LPI's enable bit and level from a vCPU's configuration table. If the byte can't be
    /// read, the LPI is disabled.
    pub(super) fn settings(&self, vcpu: u32, tables: &LpiTables, lpi: Lpi) -> (bool, Level) {
        match tables.config(lpi, &*self.memory) {
            Ok(config) => self.settings_of(config),
            Err(fault) => {
                self.faults.unreadable(vcpu, gicr::PROPBASER.offset(), fault);
                (false, self.config.priorities.level(gic_arch::Priority::IDLE))
            }
        }
    }

    /// Returns the enable bit and the level from a configuration byte.
    pub(super) fn settings_of(&self, config: Config) -> (bool, Level) {
        (config.enable(), self.config.priorities.level(config.priority()))
    }

    /// Clears an entry's pending state, including pending state held for a redistributor whose LPIs
    /// are disabled. Returns `true` if either was set.
    pub(super) fn clear(&mut self, location: Location) -> bool {
        let (old, new) = self.shared.update(location, Entry::emptied);
        self.retire(location, old, new);
        old.is_pending_or_held()
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
