//! Restores mappings, pending LPIs and enabled direct LPIs from plain data. Takes time proportional
//! to their number, and reads guest memory only for LPIs whose configuration a state doesn't
//! contain.

use super::control::Control;
use super::entry::{Entry, LEVELS, Level};
use super::entry_allocator::Owner;
use super::entry_table::Position;
use super::itt::CHUNK_ENTRIES;
use super::mapping::{ItsIndex, MappedDevice, NoRoom};
use super::ready_bitmap::ENTRIES_PER_SUMMARY;
use super::saved::{Room, SavedEvents, SavedLpi};
use super::shared::Location;
use super::sweep::Settings;
use super::tables::LpiTables;
use alloc::boxed::Box;
use core::ops::Range;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Lpi;
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;

/// Indices of consecutive LPIs with the same configuration.
pub(crate) type EnabledRange = (Range<u32>, Config);

const _: () = assert!(LEVELS <= 64, "a word has a bit for each level");

/// Memory that a restore needs, allocated while the state is still unchanged.
pub(crate) struct Reservation<'a> {
    control: &'a mut Control,
    /// vCPUs and priority levels for which ready bits for all events are allocated: a bit for each
    /// level, by vCPU.
    levels: Box<[u64]>,
}

impl<'a> Reservation<'a> {
    /// Allocates the entries and nodes, if they fit in the budget of an empty machine.
    pub(crate) fn new(control: &'a mut Control, room: &Room) -> Result<Self, NoRoom> {
        let (chunks, nodes) = (room.chunks(), room.nodes);
        if !control.device_entries.has_room(chunks, nodes) {
            return Err(NoRoom::Budget);
        }
        control.device_entries.reserve(chunks, nodes)?;
        let levels =
            try_boxed_slice(control.enabled.vcpus().map(|_| 0)).map_err(OutOfMemory::from)?;
        Ok(Self { control, levels })
    }

    /// Adds a vCPU's priority level. Returns `false` if the level is already present or the vCPU
    /// doesn't exist.
    fn insert(&mut self, vcpu: u32, level: Level) -> bool {
        let Some(levels) = self.levels.get_mut(vcpu as usize) else { return false };
        let before = *levels;
        *levels |= 1 << level.index();
        *levels != before
    }

    /// Allocates the memory for an ITS with this many mapped collections and with these devices, in
    /// ascending order.
    pub(crate) fn its(
        &mut self,
        its: ItsIndex,
        collections: usize,
        devices: impl Iterator<Item = u32>,
    ) -> Result<(), NoRoom> {
        self.control.translators.get_mut(its).ok_or(NoRoom::Budget)?.reserve(collections, devices)
    }

    /// Allocates the memory for events in these groups of the same collection, regardless of the
    /// entries that they will use. `target` returns the vCPU of a mapped collection, and `tables`
    /// the LPI tables of a vCPU, if LPIs are enabled there.
    pub(crate) fn events(
        &mut self,
        events: SavedEvents,
        groups: impl Iterator<Item = (CollectionId, u32)>,
        target: impl Fn(CollectionId) -> Option<u16>,
        tables: impl Fn(u32) -> Option<LpiTables>,
    ) -> Result<(), OutOfMemory> {
        self.control.device_entries.ensure_lpis(events.lpi_indices())?;
        for (collection, _) in groups {
            let vcpu = target(collection).unwrap_or(events.stays_at).into();
            let level = self.level_of(events.lpi, events.configuration, || tables(vcpu));
            if let Some(level) = level.filter(|level| self.insert(vcpu, *level)) {
                self.reserve_level(vcpu, level)?;
            }
        }
        Ok(())
    }

    /// Allocates the ready bits of all entries for one vCPU at one priority level.
    fn reserve_level(&mut self, vcpu: u32, level: Level) -> Result<(), OutOfMemory> {
        let end = Position::end_of(self.control.device_entries.chunk_count());
        let positions = (0..end).step_by(ENTRIES_PER_SUMMARY as usize);
        for position in positions.map(Position::new) {
            self.control.count_work(1);
            self.control.shared.ensure_ready_bit(vcpu, level, position)?;
        }
        Ok(())
    }

    /// Allocates the memory for an LPI that is pending at a redistributor without an event.
    pub(crate) fn pending(
        &self,
        saved: SavedLpi,
        tables: Option<LpiTables>,
    ) -> Result<(), OutOfMemory> {
        self.control.shared.own(saved.target).map_or(Ok(()), |own| own.ensure(saved.lpi))?;
        let level = self.level_of(saved.lpi, saved.configuration, || tables);
        let Some(level) = level else { return Ok(()) };
        let position = self.control.shared.position(Location::own(saved.target, saved.lpi));
        self.control.shared.ensure_ready_bit(saved.target, level, position)
    }

    /// Allocates the memory for a redistributor whose LPIs are enabled, including ready bits for
    /// these direct LPIs.
    pub(crate) fn enabled(
        &mut self,
        vcpu: u32,
        tables: LpiTables,
        direct: impl Iterator<Item = EnabledRange>,
    ) -> Result<(), OutOfMemory> {
        self.control.provide(vcpu, &tables)?;
        for (indices, config) in direct {
            let level = self.control.config.priorities.level(config.priority());
            let mut index = indices.start;
            while index < indices.end {
                self.control.shared.ensure_ready_bit(
                    vcpu,
                    level,
                    self.control.shared.own_position(index),
                )?;
                index = (index + 1).next_multiple_of(ENTRIES_PER_SUMMARY);
            }
        }
        Ok(())
    }

    /// Returns the level of an LPI, or `None` if the LPI will not be enabled. `tables` returns the
    /// tables of its target.
    #[inline]
    fn level_of(
        &self,
        lpi: Lpi,
        given: Option<Config>,
        tables: impl FnOnce() -> Option<LpiTables>,
    ) -> Option<Level> {
        let from_memory = || {
            let tables = tables().filter(|tables| tables.covers(lpi))?;
            tables.config(lpi, &*self.control.memory).ok()
        };
        let config = given.or_else(from_memory).filter(Config::enable)?;
        Some(self.control.config.priorities.level(config.priority()))
    }
}

/// Properties that a group of events shares.
#[derive(Clone, Copy)]
struct Common {
    its: ItsIndex,
    /// `true` if the ITS accepts messages.
    is_open: bool,
    collection: CollectionId,
    /// Entry with the generation, the enable bit and the level.
    entry: Entry,
}

/// Restore of the state into a freshly reset core, with memory from a [`Reservation`].
pub(crate) struct Restoration<'a>(&'a mut Control);

impl<'a> Restoration<'a> {
    pub(crate) const fn new(control: &'a mut Control) -> Self {
        Self(control)
    }

    /// Restores whether an ITS accepts messages, and its mapped collections with their vCPUs.
    pub(crate) fn its(
        &mut self,
        its: ItsIndex,
        enabled: bool,
        collections: impl Iterator<Item = (u16, u16)>,
    ) -> Result<(), OutOfMemory> {
        let Some(translator) = self.0.translators.get_mut(its) else { return Ok(()) };
        translator.enabled = enabled;
        translator.publish(enabled);
        for (collection, vcpu) in collections {
            translator.map_collection(collection, vcpu)?;
        }
        Ok(())
    }

    /// Restores `EnableLPIs` at a redistributor whose pending state is not in memory. Of the direct
    /// LPIs, enables those in these ranges, which must be in ascending order.
    pub(crate) fn enabled(
        &mut self,
        vcpu: u32,
        tables: LpiTables,
        direct: impl Iterator<Item = EnabledRange>,
    ) -> Result<(), OutOfMemory> {
        self.0.provide(vcpu, &tables)?;
        self.0.set_tables(vcpu, Some(tables));
        if self.0.config.direct {
            let mut next = 0;
            let end = tables.end().saturating_sub(Lpi::FIRST.get());
            let disabled = core::iter::once((end..end, Config::new()));
            for (indices, config) in direct.chain(disabled) {
                let (first, last) = (indices.start.min(end), indices.end.min(end));
                self.restore_direct_lpis(vcpu, next..first, Config::new());
                self.restore_direct_lpis(vcpu, first..last, config);
                next = last;
            }
        }
        Ok(())
    }

    /// Gives the direct LPIs with these indices the same configuration.
    fn restore_direct_lpis(&self, vcpu: u32, indices: Range<u32>, config: Config) {
        let level = self.0.config.priorities.level(config.priority());
        for index in indices {
            self.0.shared.update(Location::Own { vcpu, index }, |entry| {
                let open = entry.with_mapped(true).with_deliverable(true);
                open.with_enabled(config.enable()).with_level(level)
            });
        }
    }

    /// Restores a device and its events, in ascending order, with their collections, each with the
    /// number of consecutive events in it. `target` returns the vCPU of a mapped collection.
    pub(crate) fn device<G: Iterator<Item = (CollectionId, u32)>>(
        &mut self,
        (its, device): (ItsIndex, u32),
        mapped: MappedDevice,
        all: impl Iterator<Item = Result<(SavedEvents, G), NoRoom>>,
        target: impl Fn(CollectionId) -> Option<u16>,
    ) -> Result<(), NoRoom> {
        self.0.map_device(its, device, mapped)?;
        let translator = self.0.translators.get(its).ok_or(NoRoom::Budget)?;
        let (is_open, device_table) = (translator.enabled, translator.device_table());
        let dte = device_table.get(device).ok_or(NoRoom::Budget)?;
        for resolved in all {
            let (mut events, mut groups) = resolved?;
            let vcpu = target(events.collection).unwrap_or(events.stays_at).into();
            let (enabled, level) = self.settings_of_events(&events, vcpu);
            let mut group = (events.collection, 0);
            while events.count > 0 {
                let first =
                    self.0.device_entries.attach(dte, mapped.event_bits.into(), events.first)?;
                if events.configuration.is_none() && enabled {
                    // The configuration in memory may have changed since the reservation.
                    self.0.shared.ensure_ready_bit(vcpu, level, first.position)?;
                }
                let entry = Entry::unmapped(first.generation());
                let entry = entry.with_enabled(enabled).with_level(level);
                let (part, others) = events.split(CHUNK_ENTRIES - events.first % CHUNK_ENTRIES);
                self.0.device_entries.map_lpis(first.position.index(), part.lpi_indices());
                let (mut position, mut rest) = (first.position, part);
                while rest.count > 0 {
                    if group.1 == 0 {
                        group = groups.next().ok_or(NoRoom::Budget)?;
                    }
                    let (alike, others) = rest.split(group.1);
                    let common = Common { its, is_open, entry, collection: group.0 };
                    self.restore_group(common, position, alike, target(group.0));
                    position = position.offset_in_chunk(alike.count);
                    group.1 -= alike.count;
                    rest = others;
                }
                events = others;
            }
        }
        Ok(())
    }

    /// Restores events of one collection, whose entries are in one block, from `first` on. `mapped`
    /// is the collection's target.
    fn restore_group(
        &mut self,
        common: Common,
        first: Position,
        events: SavedEvents,
        mapped: Option<u16>,
    ) {
        let vcpu = mapped.unwrap_or(events.stays_at).into();
        let end = self.0.enabled.get(vcpu).map_or(0, |tables| tables.end());
        let end = end.saturating_sub(Lpi::FIRST.get());
        let idle = common.entry.with_target(vcpu).with_mapped(mapped.is_some());
        let open = idle.with_deliverable(mapped.is_some() && common.is_open);
        let covered = open.with_pending(events.pending);
        let uncovered = idle.with_held(events.pending);
        let owner = Owner::event(common.its, common.collection.get());
        self.0.device_entries.set_owners(first.index(), events.count, owner);
        // The reset has emptied all list registers, and until now, the entries admit no message.
        self.0.shared.entries.store(
            first,
            events.lpi_indices().map(|lpi_index| {
                let entry = if lpi_index < end { covered } else { uncovered };
                entry.with_lpi_index(lpi_index)
            }),
        );
        if events.pending {
            for position in (0..events.count).map(|at| first.offset_in_chunk(at)) {
                let entry = self.0.shared.entries.load(position);
                if entry.is_ready() {
                    self.0.set_ready_bit(entry, position);
                }
            }
        }
    }

    /// Returns the enable bit and level of events whose first targets this vCPU. Reads the
    /// configuration of a single event from memory if necessary.
    fn settings_of_events(&self, events: &SavedEvents, vcpu: u32) -> (bool, Level) {
        let tables = || self.0.enabled.get(vcpu).filter(|tables| tables.covers(events.lpi));
        match events.configuration {
            Some(config) => self.0.settings_of(config),
            None => tables().map_or((false, Level::new(0)), |tables| {
                self.0.settings(vcpu, &tables, events.lpi)
            }),
        }
    }

    /// Restores an LPI that is pending at a redistributor without an event. If an event that is
    /// mapped to the LPI targets the redistributor, the event becomes pending instead.
    pub(crate) fn pending(&mut self, saved: SavedLpi) -> Result<(), OutOfMemory> {
        let own = match self.0.place_of(saved.target, saved.lpi) {
            event @ Location::Event(_) => return self.0.pend_event(event),
            own @ Location::Own { .. } => own,
        };
        self.0.shared.own(saved.target).map_or(Ok(()), |own| own.ensure(saved.lpi))?;
        let entry = Entry::unmapped(0)
            .with_target(saved.target)
            .with_lpi_index(saved.lpi.index())
            .with_held(saved.pending);
        let (entry, settings) = match saved.configuration {
            None => (entry, Settings::Reload),
            Some(config) => {
                let (enabled, level) = self.0.settings_of(config);
                (entry.with_enabled(enabled).with_level(level), Settings::Given)
            }
        };
        let (old, new) = self.0.shared.update(own, |old| old.replaced_by(entry));
        self.0.retire(own, old, new);
        self.0.refresh(own, settings)
    }
}
