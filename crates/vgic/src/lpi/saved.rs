//! Saves and restores mappings, pending LPIs and enabled direct LPIs as plain data. Takes time
//! proportional to the number of mappings and of direct LPIs, and reads guest memory only for LPIs
//! whose configuration a state doesn't contain.

use super::control::Control;
use super::entry::{Entry, LEVELS, Level};
use super::entry_allocator::Owner;
use super::entry_table::Position;
use super::itt::{CHUNK_BITS, CHUNK_ENTRIES, NODE_BITS, depth};
use super::mapping::{ItsIndex, MappedDevice, NoRoom};
use super::ready_bitmap::ENTRIES_PER_SUMMARY;
use super::shared::Location;
use super::sweep::Settings;
use super::tables::LpiTables;
use super::translator::Translator;
use alloc::boxed::Box;
use core::ops::{Range, RangeInclusive};
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Lpi;
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;

/// Snapshot of an LPI that is mapped by an event or pending at a redistributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedLpi {
    pub(crate) lpi: Lpi,
    /// The target vCPU.
    pub(crate) target: u32,
    /// `true` if the LPI is pending at the target, or becomes pending when LPIs are enabled there.
    pub(crate) pending: bool,
    /// Configuration of the LPI, or `None` if the model doesn't hold it and it must be read from
    /// memory.
    pub(crate) configuration: Option<Config>,
}

/// Snapshot of mapped events with consecutive EventIDs and LPIs, the same pending state and the
/// same configuration. Events whose configuration must be read from memory come one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedEvents {
    /// First EventID.
    pub(crate) first: u32,
    /// Number of events.
    pub(crate) count: u32,
    /// LPI of the first event.
    pub(crate) lpi: Lpi,
    /// Collection of the first event.
    pub(crate) collection: CollectionId,
    pub(crate) pending: bool,
    /// vCPU that keeps the pending state if the collection is not mapped.
    pub(crate) stays_at: u16,
    pub(crate) configuration: Option<Config>,
}

impl SavedEvents {
    /// Returns the indices of the events' LPIs.
    fn lpi_indices(&self) -> Range<u32> {
        let first = self.lpi.index();
        first..first.saturating_add(self.count)
    }

    /// Splits the events into the first ones, at most `count`, and the others.
    fn split(self, count: u32) -> (Self, Self) {
        let count = count.min(self.count);
        let others = Self {
            first: self.first.saturating_add(count),
            count: self.count - count,
            lpi: Lpi::from_index(self.lpi.index().saturating_add(count)).unwrap_or(self.lpi),
            ..self
        };
        (Self { count, ..self }, others)
    }
}

/// Saves the state.
impl Control {
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

    /// Visits a device's mapped events in EventID order, each with its collection.
    pub(crate) fn each_event(
        &self,
        its: ItsIndex,
        device: u32,
        mut each: impl FnMut(u32, u16, SavedLpi) -> Result<(), OutOfMemory>,
    ) -> Result<(), OutOfMemory> {
        let translator = self.translators.get(its);
        let Some(dte) = translator.and_then(|its| its.dte(device)) else { return Ok(()) };
        let mut outcome = Ok(());
        self.device_entries.each(dte, &mut |event, index| {
            if let Owner::Event { collection, .. } = self.device_entries.owner(index)
                && outcome.is_ok()
            {
                let entry = self.shared.load(Location::Event(index));
                outcome = each(event, collection, saved(entry));
            }
        });
        outcome
    }

    /// Returns the LPIs that are pending at a redistributor without an event, in ascending order.
    pub(crate) fn pending_by_themselves(&self, vcpu: u32) -> impl Iterator<Item = SavedLpi> {
        self.own_entries(vcpu).map(saved).filter(|saved| saved.pending)
    }

    /// Returns the direct LPIs that are enabled at a redistributor, pending or not, with their
    /// configurations and in ascending order.
    pub(crate) fn enabled_direct_lpis(&self, vcpu: u32) -> impl Iterator<Item = (Lpi, Config)> {
        let has_any = self.config.direct && self.enabled.get(vcpu).is_some();
        let all = has_any.then(|| self.own_entries(vcpu)).into_iter().flatten();
        let enabled = all.filter(|entry| entry.is_enabled() && entry.is_deliverable());
        enabled.map(|entry| (entry.lpi(), configuration(entry)))
    }
}

/// Converts an entry to plain data. The entry must come from a single load, so that an LPI can't be
/// saved as pending at two targets.
fn saved(entry: Entry) -> SavedLpi {
    SavedLpi {
        lpi: entry.lpi(),
        target: entry.target(),
        pending: entry.is_pending_or_held(),
        configuration: Some(configuration(entry)),
    }
}

fn configuration(entry: Entry) -> Config {
    Config::new().with_enable(entry.is_enabled()).with_priority(entry.level().configured())
}

/// Indices of consecutive LPIs with the same configuration.
pub(crate) type EnabledRange = (Range<u32>, Config);

/// Set of vCPUs and priority levels for which ready bits for all events are allocated: a bit for
/// each level, by vCPU.
pub(crate) struct ReservedLevels(Box<[u64]>);

const _: () = assert!(LEVELS <= 64, "a word has a bit for each level");

impl ReservedLevels {
    /// Adds a vCPU's priority level. Returns `false` if the level is already present or the vCPU
    /// doesn't exist.
    fn insert(&mut self, vcpu: u32, level: Level) -> bool {
        let Some(levels) = self.0.get_mut(vcpu as usize) else { return false };
        let before = *levels;
        *levels |= 1 << level.index();
        *levels != before
    }
}

/// Allocates the memory that a restore needs, while the state is still unchanged. Callers must
/// first have checked that the budget has [`Room`].
impl Control {
    /// Allocates the entries and nodes.
    pub(crate) fn reserve_room(&mut self, room: &Room) -> Result<(), NoRoom> {
        self.device_entries.reserve(room.chunks(), room.nodes)
    }

    /// Allocates the memory for an ITS with this many mapped collections and with these devices, in
    /// ascending order.
    pub(crate) fn reserve_its(
        &mut self,
        its: ItsIndex,
        collections: usize,
        devices: impl Iterator<Item = u32>,
    ) -> Result<(), NoRoom> {
        self.translators.get_mut(its).ok_or(NoRoom::Budget)?.reserve(collections, devices)
    }

    /// Allocates the memory for events in these groups of the same collection, regardless of the
    /// entries that they will use. `target` returns the vCPU of a mapped collection, and `tables`
    /// the LPI tables of a vCPU, if LPIs are enabled there. The entries must already be
    /// [reserved](Self::reserve_room).
    pub(crate) fn reserve_events(
        &mut self,
        events: SavedEvents,
        groups: impl Iterator<Item = (CollectionId, u32)>,
        target: impl Fn(CollectionId) -> Option<u16>,
        tables: impl Fn(u32) -> Option<LpiTables>,
        reserved: &mut ReservedLevels,
    ) -> Result<(), OutOfMemory> {
        self.device_entries.ensure_lpis(events.lpi_indices())?;
        for (collection, _) in groups {
            let vcpu = target(collection).unwrap_or(events.stays_at).into();
            let level = self.level_of(events.lpi, events.configuration, || tables(vcpu));
            if let Some(level) = level.filter(|level| reserved.insert(vcpu, *level)) {
                self.reserve_level(vcpu, level)?;
            }
        }
        Ok(())
    }

    /// Allocates the ready bits of all entries for a vCPU and level.
    fn reserve_level(&mut self, vcpu: u32, level: Level) -> Result<(), OutOfMemory> {
        let end = Position::end_of(self.device_entries.chunk_count());
        let positions = (0..end).step_by(ENTRIES_PER_SUMMARY as usize);
        for position in positions.map(Position::new) {
            self.count_work(1);
            self.shared.ensure_ready_bit(vcpu, level, position)?;
        }
        Ok(())
    }

    /// Returns the set without any level, for [`reserve_events`](Self::reserve_events).
    pub(crate) fn no_levels(&self) -> Result<ReservedLevels, OutOfMemory> {
        Ok(ReservedLevels(try_boxed_slice(self.enabled.vcpus().map(|_| 0))?))
    }

    /// Allocates the memory for an LPI that is pending at a redistributor without an event.
    pub(crate) fn reserve_pending(
        &self,
        saved: SavedLpi,
        tables: Option<LpiTables>,
    ) -> Result<(), OutOfMemory> {
        self.shared.own(saved.target).map_or(Ok(()), |own| own.ensure(saved.lpi))?;
        let level = self.level_of(saved.lpi, saved.configuration, || tables);
        let Some(level) = level else { return Ok(()) };
        let position = self.shared.position(Location::own(saved.target, saved.lpi));
        self.shared.ensure_ready_bit(saved.target, level, position)
    }

    /// Allocates the memory for a redistributor whose LPIs are enabled, including ready bits for
    /// these direct LPIs.
    pub(crate) fn reserve_enabled(
        &mut self,
        vcpu: u32,
        tables: LpiTables,
        direct: impl Iterator<Item = EnabledRange>,
    ) -> Result<(), OutOfMemory> {
        self.provide(vcpu, &tables)?;
        for (indices, config) in direct {
            let level = self.config.priorities.level(config.priority());
            let mut index = indices.start;
            while index < indices.end {
                self.shared.ensure_ready_bit(vcpu, level, self.shared.own_position(index))?;
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
            tables.config(lpi, &*self.memory).ok()
        };
        let config = given.or_else(from_memory).filter(Config::enable)?;
        Some(self.config.priorities.level(config.priority()))
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

/// Restores the state into a core that was just reset. Callers must first have checked that the
/// budget has [`Room`].
impl Control {
    /// Restores `EnableLPIs` at a redistributor whose pending state is not in memory. Of the direct
    /// LPIs, enables those in these ranges, which must be in ascending order.
    pub(crate) fn restore_enabled(
        &mut self,
        vcpu: u32,
        tables: LpiTables,
        direct: impl Iterator<Item = EnabledRange>,
    ) -> Result<(), OutOfMemory> {
        self.provide(vcpu, &tables)?;
        self.set_tables(vcpu, Some(tables));
        if self.config.direct {
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
        let level = self.config.priorities.level(config.priority());
        for index in indices {
            self.shared.update(Location::Own { vcpu, index }, |entry| {
                let open = entry.with_mapped(true).with_deliverable(true);
                open.with_enabled(config.enable()).with_level(level)
            });
        }
    }

    /// Restores a mapped collection, before any of its events.
    pub(crate) fn restore_collection(
        &mut self,
        its: ItsIndex,
        collection: u16,
        vcpu: u16,
    ) -> Result<(), OutOfMemory> {
        let translator = self.translators.get_mut(its);
        translator.map_or(Ok(()), |its| its.map_collection(collection, vcpu))
    }

    /// Restores whether an ITS accepts messages, before any of its events.
    pub(crate) fn restore_its_enabled(&mut self, its: ItsIndex, enabled: bool) {
        if let Some(translator) = self.translators.get_mut(its) {
            translator.enabled = enabled;
            translator.publish(enabled);
        }
    }

    /// Restores the events of a mapped device, in ascending order, with their collections, each
    /// with the number of consecutive events in it. `target` returns the vCPU of a mapped
    /// collection.
    pub(crate) fn restore_events<G: Iterator<Item = (CollectionId, u32)>>(
        &mut self,
        (its, device): (ItsIndex, u32),
        all: impl Iterator<Item = Result<(SavedEvents, G), NoRoom>>,
        target: impl Fn(CollectionId) -> Option<u16>,
    ) -> Result<(), NoRoom> {
        let translator = self.translators.get(its).ok_or(NoRoom::Budget)?;
        let (is_open, device_table) = (translator.enabled, translator.device_table());
        let event_bits = translator.event_bits(device).ok_or(NoRoom::Budget)?;
        let dte = device_table.get(device).ok_or(NoRoom::Budget)?;
        for resolved in all {
            let (mut events, mut groups) = resolved?;
            let vcpu = target(events.collection).unwrap_or(events.stays_at).into();
            let (enabled, level) = self.settings_of_events(&events, vcpu);
            let mut group = (events.collection, 0);
            while events.count > 0 {
                let first = self.device_entries.attach(dte, event_bits.into(), events.first)?;
                if events.configuration.is_none() && enabled {
                    // The configuration in memory may have changed since the reservation.
                    self.shared.ensure_ready_bit(vcpu, level, first.position)?;
                }
                let entry = Entry::unmapped(first.generation());
                let entry = entry.with_enabled(enabled).with_level(level);
                let (part, others) = events.split(CHUNK_ENTRIES - events.first % CHUNK_ENTRIES);
                self.device_entries.map_lpis(first.position.index(), part.lpi_indices());
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
        let end = self.enabled.get(vcpu).map_or(0, |tables| tables.end());
        let end = end.saturating_sub(Lpi::FIRST.get());
        let idle = common.entry.with_target(vcpu).with_mapped(mapped.is_some());
        let open = idle.with_deliverable(mapped.is_some() && common.is_open);
        let covered = open.with_pending(events.pending);
        let uncovered = idle.with_held(events.pending);
        let owner = Owner::event(common.its, common.collection.get());
        self.device_entries.set_owners(first.index(), events.count, owner);
        // The reset has emptied all list registers, and until now, the entries admit no message.
        self.shared.entries.store(
            first,
            events.lpi_indices().map(|lpi_index| {
                let entry = if lpi_index < end { covered } else { uncovered };
                entry.with_lpi_index(lpi_index)
            }),
        );
        if events.pending {
            for position in (0..events.count).map(|at| first.offset_in_chunk(at)) {
                let entry = self.shared.entries.load(position);
                if entry.is_ready() {
                    self.set_ready_bit(entry, position);
                }
            }
        }
    }

    /// Returns the enable bit and level of events whose first targets this vCPU. Reads the
    /// configuration of a single event from memory if necessary.
    fn settings_of_events(&self, events: &SavedEvents, vcpu: u32) -> (bool, Level) {
        let tables = || self.enabled.get(vcpu).filter(|tables| tables.covers(events.lpi));
        match events.configuration {
            Some(config) => self.settings_of(config),
            None => tables()
                .map_or((false, Level::new(0)), |tables| self.settings(vcpu, &tables, events.lpi)),
        }
    }

    /// Restores an LPI that is pending at a redistributor without an event. If an event that is
    /// mapped to the LPI targets the redistributor, the event becomes pending instead.
    pub(crate) fn restore_pending_by_itself(&mut self, saved: SavedLpi) -> Result<(), OutOfMemory> {
        let own = match self.place_of(saved.target, saved.lpi) {
            event @ Location::Event(_) => return self.pend_event(event),
            own @ Location::Own { .. } => own,
        };
        self.shared.own(saved.target).map_or(Ok(()), |own| own.ensure(saved.lpi))?;
        let entry = Entry::unmapped(0)
            .with_target(saved.target)
            .with_lpi_index(saved.lpi.index())
            .with_held(saved.pending);
        let (entry, settings) = match saved.configuration {
            None => (entry, Settings::Reload),
            Some(config) => {
                let (enabled, level) = self.settings_of(config);
                (entry.with_enabled(enabled).with_level(level), Settings::Given)
            }
        };
        let (old, new) = self.shared.update(own, |old| old.replaced_by(entry));
        self.retire(own, old, new);
        self.refresh(own, settings)
    }
}

/// Number of entries and nodes that a saved state needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// Number of blocks, indexed by log2 of their size.
    blocks: [u64; CHUNK_BITS as usize + 1],
    nodes: u64,
}

impl Room {
    /// Adds a device with these ranges of mapped events, which must be in ascending order.
    pub(crate) fn add_device(
        &mut self,
        event_bits: u8,
        events: impl Iterator<Item = RangeInclusive<u32>>,
    ) {
        let event_bits = u32::from(event_bits);
        let (size, depth) = (event_bits.min(CHUNK_BITS), depth(event_bits));
        let mut last: Option<u32> = None;
        let chunks =
            events.flat_map(|events| events.start() >> CHUNK_BITS..=events.end() >> CHUNK_BITS);
        for event in chunks.map(|chunk| chunk << CHUNK_BITS) {
            if last == Some(event) {
                continue;
            }
            // An event in a different subtree than its predecessor needs additional nodes or
            // blocks.
            let fresh = |shift: u32| last.is_none_or(|last| last >> shift != event >> shift);
            self.blocks[size as usize] += u64::from(fresh(size));
            let nodes = (1..=depth).filter(|below| fresh(CHUNK_BITS + NODE_BITS * below)).count();
            self.nodes += nodes as u64;
            last = Some(event);
        }
    }

    fn chunks(&self) -> u64 {
        let entries =
            self.blocks.iter().enumerate().map(|(size, blocks)| (blocks << size, CHUNK_ENTRIES));
        entries.map(|(entries, chunk)| entries.div_ceil(chunk.into())).sum()
    }
}

impl Control {
    /// Returns `true` if this would fit in the budget of an empty machine.
    pub(crate) fn has_room(&self, room: &Room) -> bool {
        self.device_entries.has_room(room.chunks(), room.nodes)
    }

    /// Returns `true` if these devices, in ascending order, would fit in an ITS without other
    /// devices.
    pub(crate) fn has_room_for_devices(
        &self,
        its: ItsIndex,
        devices: impl ExactSizeIterator<Item = u32>,
    ) -> bool {
        devices.len() <= self.config.devices as usize
            && self.translators.get(its).is_some_and(|its| its.has_room_for(devices))
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sender_needs_as_many_nodes_and_blocks_as_it_has_parts_with_events(
            event_bits in 6u8..=23,
            events in proptest::collection::btree_set(any::<u32>(), 0..40),
        ) {
            use alloc::collections::BTreeSet;
            let shifted = events.iter().map(|event| event >> (32 - event_bits));
            let events: BTreeSet<u32> = shifted.collect();
            let mut room = Room::default();
            room.add_device(event_bits, events.iter().map(|event| *event..=*event));
            let parts = |shift: u32| {
                events.iter().map(|event| event >> shift).collect::<BTreeSet<_>>().len() as u64
            };
            let levels = 1..=depth(event_bits.into());
            let nodes: u64 = levels.map(|below| parts(CHUNK_BITS + NODE_BITS * below)).sum();
            prop_assert_eq!((room.chunks(), room.nodes), (parts(CHUNK_BITS), nodes));
        }
    }
}
