//! Implements ITS commands, once their operands have been checked. A command changes the state
//! immediately, and its sweep then updates the entries to match.

use super::command_state::{CommandState, Refresh};
use super::control::Control;
use super::device_table::DeviceTable;
use super::entry::Entry;
use super::entry_allocator::Owner;
use super::entry_table::EntryIndex;
use super::injection::Injection;
use super::itt::EntryRef;
use super::itt_teardown::IttTeardown;
use super::mapping::{ItsIndex, MappedDevice, NoRoom};
use super::rewriting::Rewrites;
use super::shared::Location;
use super::sweep::{Cause, LpiChange, Meant, OwnCursor, Pause, Settings, Sweep};
use super::translator::Translator;
use alloc::sync::Arc;
use doorbell_fallible::OutOfMemory;
use gic_arch::Lpi;

/// Mapped event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedEvent {
    its: ItsIndex,
    entry: EntryRef,
    /// Its collection.
    pub(crate) collection: u16,
}

impl MappedEvent {
    /// Returns the index of the event's entry.
    pub(super) const fn index(&self) -> EntryIndex {
        self.entry.index()
    }
}

impl Control {
    /// Adds an ITS, disabled and without mappings.
    pub(super) fn add_its(
        &mut self,
        base: u64,
        device_table: Arc<DeviceTable>,
    ) -> Result<ItsIndex, NoRoom> {
        self.make_room_for_sweeps()?;
        self.translators.add(base, device_table)
    }

    /// Sets `GITS_CTLR.Enabled`. When enabling, messages are accepted once
    /// [`is_admitting`](Self::is_admitting) returns `false`. When disabling, messages can't make an
    /// LPI pending through this ITS once it [`is_quiescent`](Self::is_quiescent).
    pub(crate) fn set_its_enabled(&mut self, its: ItsIndex, enabled: bool) {
        if let Some(translator) = self.translators.get_mut(its)
            && translator.enabled != enabled
        {
            translator.enabled = enabled;
            translator.publish(false);
            let (resettle, admit) = (Cause::Resettle(its), Cause::Admit(its));
            let (ends, begins) = if enabled { (resettle, admit) } else { (admit, resettle) };
            // The new sweep also visits all entries that the old sweep hasn't visited yet.
            self.sweeps.abandon(ends);
            self.refresh_its(begins, its);
        }
    }

    fn refresh_its(&mut self, cause: Cause, its: ItsIndex) {
        self.start_refresh(cause, Meant::Its(its.get()));
    }

    /// Advances the sweeps for the ITS's registers and its last command until they are done or
    /// [`work`](Self::work) reaches `limit`. Returns `true` if the ITS is quiescent.
    ///
    /// # Errors
    /// A sweep has paused. It can be resumed later.
    pub(crate) fn advance_its(&mut self, its: ItsIndex, limit: u64) -> Result<bool, Pause> {
        // Most polls of the queue don't find a sweep in progress.
        if self.sweeps.is_empty() {
            return Ok(true);
        }
        for cause in Cause::of_its(its) {
            if !self.advance(cause, limit)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Executes MAPD with V = 1. If the device is already mapped with other operands, it is first
    /// unmapped with all its events and their pending state. Entries are allocated only when events
    /// are mapped.
    ///
    /// # Errors
    /// The budget or the heap is exhausted. The device is unmapped afterwards. If the device was
    /// mapped before, mapping it again doesn't need memory.
    pub(crate) fn map_device(
        &mut self,
        its: ItsIndex,
        device: u32,
        mapped: MappedDevice,
    ) -> Result<(), NoRoom> {
        if self.device(its, device) == Some(mapped) {
            return Ok(());
        }
        self.unmap_device(its, device);
        let limit = self.config.devices as usize;
        let translator = self.translators.get_mut(its).ok_or(NoRoom::Budget)?;
        translator.map_device(device, mapped, limit)
    }

    /// Executes MAPD with V = 0. The command is complete when its sweep is done.
    pub(crate) fn unmap_device(&mut self, its: ItsIndex, device: u32) {
        let translator = self.translators.get_mut(its);
        if let Some(teardown) = translator.and_then(|its| its.unmap_device(device)) {
            self.start(Cause::Command(its), Sweep::Unmap { its, devices: None, teardown });
        }
    }

    /// Starts unmapping all devices. The operation is complete when the ITS
    /// [`is_quiescent`](Self::is_quiescent).
    pub(crate) fn unmap_all_devices(&mut self, its: ItsIndex) {
        let teardown = match self.sweeps.abandon(Cause::Teardown(its)) {
            Some(Sweep::Unmap { teardown, .. }) => teardown,
            _ => IttTeardown::default(),
        };
        self.start(Cause::Teardown(its), Sweep::Unmap { its, devices: Some(0), teardown });
    }

    /// Unmaps all of an ITS's remaining devices and collections, in one call. Abandons the sweep
    /// for its last command, because the mappings that it would visit no longer exist.
    ///
    pub(crate) fn unmap_finally(&mut self, its: ItsIndex) {
        // The remaining sweeps wait for memory, but this ITS's sweeps no longer need any.
        let _ = self.finish_sweeps();
        self.sweeps.abandon(Cause::Command(its));
    }

    /// Executes MAPC with V = 1. If the collection was mapped to another vCPU, its events and their
    /// pending state move. The command is complete when its sweep is done.
    pub(crate) fn map_collection(
        &mut self,
        its: ItsIndex,
        collection: u16,
        vcpu: u16,
    ) -> Result<(), OutOfMemory> {
        if let Some(translator) = self.translators.get_mut(its)
            && translator.collection(collection) != Some(vcpu)
        {
            translator.map_collection(collection, vcpu)?;
            self.refresh_collection(its, collection);
        }
        Ok(())
    }

    /// Executes MAPC with V = 0. Pending LPIs stay pending at their redistributor. The command is
    /// complete when its sweep is done.
    pub(crate) fn unmap_collection(&mut self, its: ItsIndex, collection: u16) {
        if self.translators.get_mut(its).is_some_and(|its| its.unmap_collection(collection)) {
            self.refresh_collection(its, collection);
        }
    }

    /// Unmaps all collections starting at this number.
    pub(crate) fn unmap_collections_from(&mut self, its: ItsIndex, first: u16) {
        if let Some(translator) = self.translators.get_mut(its) {
            translator.unmap_collections_from(first);
            self.refresh_its(Cause::Resettle(its), its);
        }
    }

    fn refresh_collection(&mut self, its: ItsIndex, collection: u16) {
        let meant = Meant::Collection { its: its.get(), collection };
        self.start_refresh(Cause::Command(its), meant);
    }

    /// Executes INVALL: rereads the configuration of every LPI at a redistributor from memory. The
    /// command is complete when its sweep is done.
    pub(crate) fn invalidate_all_for(&mut self, its: ItsIndex, vcpu: u16) {
        self.start_invalidation(Cause::Command(its), vcpu.into());
    }

    /// Executes MOVALL: LPIs that are pending at `from` become pending at `to` instead. Events stay
    /// in their collections. The command is complete when its sweep is done.
    pub(crate) fn move_all(&mut self, its: ItsIndex, from: u16, to: u16) {
        if from != to {
            let cursor = self.all_chunks();
            let (from, to) = (from.into(), to.into());
            self.start(
                Cause::Command(its),
                Sweep::MoveAll { cursor, own: OwnCursor::START, from, to },
            );
        }
    }

    /// Executes MAPTI and MAPI. If the event was mapped to another LPI or collection, it is
    /// remapped and its pending state is discarded. The EventID must be in range for its device,
    /// and the LPI for the distributor.
    pub(crate) fn map_event(
        &mut self,
        its: ItsIndex,
        (device, event): (u32, u32),
        lpi: Lpi,
        collection: u16,
    ) -> Result<(), NoRoom> {
        if self.is_mapped_so(its, (device, event), lpi, collection) {
            return Ok(());
        }
        let found = self.attach_event(its, (device, event), lpi)?;
        let mapping = self.prepare_mapping(MappedEvent { its, entry: found, collection }, lpi)?;
        self.give_entry(found.index(), Owner::event(its, collection), lpi);
        let (state, rewrites) = self.parts();
        state.write_mapping(rewrites, found.index(), mapping);
        self.settle_mapping(its, found.index());
        Ok(())
    }

    /// Returns the entry for an event that is about to be mapped to an LPI, with all memory for the
    /// mapping allocated.
    pub(super) fn attach_event(
        &mut self,
        its: ItsIndex,
        (device, event): (u32, u32),
        lpi: Lpi,
    ) -> Result<EntryRef, NoRoom> {
        let MappedDevice { event_bits, .. } = self.device(its, device).ok_or(NoRoom::Budget)?;
        let device_table = self.translators.get(its).ok_or(NoRoom::Budget)?.device_table();
        let dte = device_table.get(device).ok_or(NoRoom::Budget)?;
        self.device_entries.by_lpi.ensure(lpi.index()..lpi.index() + 1)?;
        self.device_entries.attach(dte, u32::from(event_bits), event)
    }

    /// Assigns an entry to an event, mapped to an LPI.
    pub(super) fn give_entry(&mut self, index: EntryIndex, owner: Owner, lpi: Lpi) {
        self.forget_lpi(index);
        self.device_entries.give(index, owner, lpi);
    }

    /// Ends the mapping from an event's entry to its LPI. If a single entry then remains mapped to
    /// the LPI, that entry takes over the pending state that its target redistributor holds for the
    /// LPI.
    fn forget_lpi(&mut self, index: EntryIndex) {
        if let Some(lpi_index) = self.device_entries.take_back(index)
            && let Some(left) = self.device_entries.by_lpi.only(lpi_index).map(Location::Event)
            // If there is no memory for the entry's ready bit, the pending state stays in the
            // redistributor's own entry.
            && let Ok(Some(refresh)) = self.prepared(left, Settings::Keep)
            && self.take_own(self.shared.load(left).target(), lpi_index)
        {
            self.pend(left, refresh);
        }
    }

    /// Unmaps an entry. The entry's generation stays the same, because the block still has the same
    /// owner.
    pub(super) fn unmap_entry(&mut self, index: EntryIndex) {
        self.forget_lpi(index);
        let (state, rewrites) = self.parts();
        state.write_unmapped(rewrites, index);
    }

    /// Executes MOVI: the event and its pending state move to another collection.
    pub(crate) fn move_event(
        &mut self,
        event: MappedEvent,
        collection: u16,
    ) -> Result<(), OutOfMemory> {
        let (state, rewrites) = self.parts();
        if !state.move_event(rewrites, event, collection)? {
            self.settle_mapping(event.its, event.index());
        }
        Ok(())
    }

    /// Lets an event, which a command has mapped or moved, take over the LPI that is in a list
    /// register of its target, if any. The command is complete when the vCPU has exited. If other
    /// events are mapped to the LPI, all get the same configuration.
    fn settle_mapping(&mut self, its: ItsIndex, event: EntryIndex) {
        if self.is_own_left(Location::Event(event))
            || self.device_entries.by_lpi.has_neighbors(event)
        {
            self.start_for_lpi(Cause::Command(its), event, LpiChange::Reload);
        }
    }

    /// Starts to change the entries of all events that are mapped to the LPI of an event.
    fn start_for_lpi(&mut self, cause: Cause, event: EntryIndex, change: LpiChange) {
        let lpi = self.shared.load(Location::Event(event)).lpi();
        let next = self.device_entries.by_lpi.first(lpi.index());
        self.start(cause, Sweep::ForLpi { lpi, next, change });
    }

    /// Executes CLEAR: clears the pending state of the event's LPI at its redistributor. The
    /// command is complete when its sweep, if any, is done.
    pub(crate) fn clear_event(&mut self, event: MappedEvent) {
        let (state, rewrites) = self.parts();
        if !state.clear_event(rewrites, event.index()) {
            let vcpu = self.shared.load(Location::Event(event.index())).target();
            let cause = Cause::Command(event.its);
            self.start_for_lpi(cause, event.index(), LpiChange::ClearAt(vcpu));
        }
    }

    /// Executes DISCARD: clears the event like CLEAR, and unmaps it.
    pub(crate) fn discard_event(&mut self, event: MappedEvent) {
        self.clear(self.own_lpi_of(Location::Event(event.entry.index())));
        self.unmap_entry(event.entry.index());
    }

    /// Executes INV: rereads the configuration of the event's LPI from memory. The command is
    /// complete when its sweep, if any, is done.
    pub(crate) fn invalidate_event(&mut self, event: MappedEvent) -> Result<(), OutOfMemory> {
        let (state, rewrites) = self.parts();
        if !state.invalidate_event(rewrites, event.index())? {
            let cause = Cause::Command(event.its);
            self.start_for_lpi(cause, event.index(), LpiChange::Reload);
        }
        Ok(())
    }
}

impl CommandState {
    /// Returns `true` if the ITS is being enabled, but doesn't accept messages for every event yet.
    pub(crate) fn is_admitting(&self, its: ItsIndex) -> bool {
        self.sweeps.contains(Cause::Admit(its))
    }

    /// Returns `true` if all work requested by the ITS's registers and its last command is done.
    pub(crate) fn is_quiescent(&self, its: ItsIndex) -> bool {
        self.sweeps.is_quiescent(its)
    }

    /// Returns `true` if enabling the ITS has stopped for lack of heap memory.
    pub(crate) fn is_admission_starved(&self, its: ItsIndex) -> bool {
        self.sweeps.is_starved(Cause::Admit(its))
    }

    /// Returns an ITS's mapped devices, in ascending order.
    pub(crate) fn mapped_devices(
        &self,
        its: ItsIndex,
    ) -> impl Iterator<Item = (u32, MappedDevice)> {
        self.translators.get(its).into_iter().flat_map(Translator::mapped_devices)
    }

    /// Returns an ITS's mapped collections with their vCPUs, in ascending order.
    pub(crate) fn mapped_collections(&self, its: ItsIndex) -> impl Iterator<Item = (u16, u16)> {
        self.translators.get(its).into_iter().flat_map(Translator::collections)
    }

    /// Returns a device's MAPD operands, if it is mapped.
    pub(crate) fn device(&self, its: ItsIndex, device: u32) -> Option<MappedDevice> {
        self.translators.get(its)?.device(device)
    }

    /// Returns a mapped collection's vCPU.
    pub(crate) fn collection(&self, its: ItsIndex, collection: u16) -> Option<u16> {
        self.translators.get(its)?.collection(collection)
    }

    /// Looks up a mapped event.
    pub(crate) fn event(&self, its: ItsIndex, device: u32, event: u32) -> Option<MappedEvent> {
        let found = self.device_entries.find(self.translators.get(its)?.dte(device)?, event)?;
        match self.device_entries.allocator.owner(found.index()) {
            Owner::Event { collection, .. } => Some(MappedEvent { its, entry: found, collection }),
            Owner::Nobody => None,
        }
    }

    /// Returns `true` if an event is mapped to this LPI and collection.
    pub(super) fn is_mapped_so(
        &self,
        its: ItsIndex,
        (device, event): (u32, u32),
        lpi: Lpi,
        collection: u16,
    ) -> bool {
        let found = self.event(its, device, event).filter(|found| found.collection == collection);
        found.is_some_and(|found| self.device_entries.is_mapped_to(found.index(), lpi))
    }

    /// Moves an event. Returns `false` if the move has to be [settled](Control::settle_mapping).
    pub(super) fn move_event(
        &self,
        rewrites: &mut Rewrites,
        event: MappedEvent,
        collection: u16,
    ) -> Result<bool, OutOfMemory> {
        let location = Location::Event(event.index());
        let now = self.shared.load(location);
        let Some(route) = self.route_of_event(event.its, collection, now) else { return Ok(true) };
        let refresh = self.prepare(location, now, route, Settings::Keep)?;
        self.device_entries.allocator.set_owner(event.index(), Owner::event(event.its, collection));
        self.write(rewrites, location, refresh);
        Ok(!self.is_own_left(location) && !self.device_entries.by_lpi.has_neighbors(event.index()))
    }

    /// Executes INT: injects a message for the event.
    pub(crate) fn signal_event(&self, event: MappedEvent) -> Injection {
        match self.shared.set_pending(event.entry) {
            None => Injection::Dropped,
            Some(seen) if seen.is_pending() => Injection::Coalesced,
            Some(seen) => {
                self.set_ready_bit(seen.with_pending(true), event.entry.position);
                Injection::Fresh
            }
        }
    }

    /// Maps an event to an LPI to which no other event is mapped. Returns `None`, and changes
    /// nothing, if the command must be executed alone: if the event has no entry or another LPI, or
    /// if the LPI is pending at the redistributor.
    pub(super) fn map_only_event(
        &self,
        rewrites: &mut Rewrites,
        its: ItsIndex,
        (device, event): (u32, u32),
        lpi: Lpi,
        collection: u16,
    ) -> Option<()> {
        let translator = self.translators.get(its)?;
        let target = translator.collection(collection)?;
        let entry = self.device_entries.find(translator.dte(device)?, event)?;
        let own = self.shared.load(Location::own(target.into(), lpi));
        if own.is_pending_or_held() || own.is_listed() {
            return None;
        }
        let mapping = self.prepare_mapping(MappedEvent { its, entry, collection }, lpi).ok()?;
        let owner = Owner::event(its, collection);
        self.device_entries.give_only(entry.index(), owner, lpi).then_some(())?;
        self.write_mapping(rewrites, entry.index(), mapping);
        Some(())
    }

    /// Discards an event if no other event is mapped to its LPI. Otherwise returns `false`, and
    /// changes nothing: the command must be executed alone.
    pub(super) fn discard_only_event(&self, rewrites: &mut Rewrites, event: EntryIndex) -> bool {
        let own = self.own_lpi_of(Location::Event(event));
        let lpi = self.shared.load(Location::Event(event)).lpi();
        let is_taken = self.device_entries.take_back_only(event, lpi);
        if is_taken {
            self.clear(rewrites, own);
            self.write_unmapped(rewrites, event);
        }
        is_taken
    }

    /// Returns the value of an event's entry before its mapping, and what the mapping changes.
    fn prepare_mapping(&self, event: MappedEvent, lpi: Lpi) -> Result<(Entry, Refresh), NoRoom> {
        let MappedEvent { its, entry: found, collection } = event;
        let translator = self.translators.get(its).ok_or(NoRoom::Budget)?;
        let target = translator.collection(collection).unwrap_or(0);
        let entry = Entry::unmapped(found.generation())
            .with_target(u32::from(target))
            .with_lpi_index(lpi.index());
        let location = Location::Event(found.index());
        let route = self.route_of_event(its, collection, entry).ok_or(NoRoom::Budget)?;
        Ok((entry, self.prepare(location, entry, route, Settings::Reload)?))
    }

    fn write_mapping(
        &self,
        rewrites: &mut Rewrites,
        event: EntryIndex,
        (entry, refresh): (Entry, Refresh),
    ) {
        let location = Location::Event(event);
        let (old, new) = self.shared.update(location, |old| old.replaced_by(entry));
        self.retire(rewrites, location, old, new);
        self.write(rewrites, location, refresh);
    }

    fn write_unmapped(&self, rewrites: &mut Rewrites, event: EntryIndex) {
        let unmapped = |entry: Entry| {
            let target = entry.target();
            entry.replaced_by(Entry::unmapped(entry.generation()).with_target(target))
        };
        let location = Location::Event(event);
        let (old, new) = self.shared.update(location, unmapped);
        self.retire(rewrites, location, old, new);
    }

    /// Clears an event's LPI. Returns `false` if other events are mapped to the LPI, whose entries
    /// have yet to be cleared.
    pub(super) fn clear_event(&self, rewrites: &mut Rewrites, index: EntryIndex) -> bool {
        let event = Location::Event(index);
        self.clear(rewrites, self.own_lpi_of(event));
        self.clear(rewrites, event);
        !self.device_entries.by_lpi.has_neighbors(index)
    }

    /// Rereads the configuration of an event's LPI. Returns `false` if other events are mapped to
    /// the LPI, which have yet to reread it.
    pub(super) fn invalidate_event(
        &self,
        rewrites: &mut Rewrites,
        index: EntryIndex,
    ) -> Result<bool, OutOfMemory> {
        let event = Location::Event(index);
        self.refresh(rewrites, self.own_lpi_of(event), Settings::Reload)?;
        self.refresh(rewrites, event, Settings::Reload)?;
        Ok(!self.device_entries.by_lpi.has_neighbors(index))
    }
}
