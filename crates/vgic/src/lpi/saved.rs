//! Saves and restores mappings, pending LPIs and enabled direct LPIs as plain data. Takes time
//! proportional to the number of mappings and of direct LPIs, and reads guest memory only for LPIs
//! whose configuration a state doesn't contain.

use super::control::Control;
use super::entry::{Entry, LEVELS, Level};
use super::entry_allocator::Owner;
use super::entry_table::Position;
use super::itt::{CHUNK_BITS, CHUNK_ENTRIES, EntryRef, NODE_BITS, depth};
use super::mapping::{ItsIndex, MappedDevice, NoRoom};
use super::ready_bitmap::ENTRIES_PER_SUMMARY;
use super::shared::Location;
use super::sweep::Settings;
use super::tables::LpiTables;
use super::translator::Translator;
use alloc::boxed::Box;
use core::ops::Range;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Lpi;
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

/// Snapshot of a mapped event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedEvent {
    /// EventID.
    pub(crate) event: u32,
    /// Number of its collection.
    pub(crate) collection: u16,
    /// `true` if the collection is mapped.
    pub(crate) is_mapped: bool,
    pub(crate) lpi: SavedLpi,
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

/// Set of vCPUs and priority levels for which ready bits for all events are allocated.
pub(crate) struct ReservedLevels {
    /// A bit for each level, by vCPU.
    levels: Box<[u64]>,
    /// Target and configuration of the last LPI.
    last: Option<(u32, Config)>,
}

const _: () = assert!(LEVELS <= 64, "a word has a bit for each level");

impl ReservedLevels {
    /// Adds a vCPU's priority level. Returns `false` if the level is already present or the vCPU
    /// doesn't exist.
    fn insert(&mut self, vcpu: u32, level: Level) -> bool {
        let Some(levels) = self.levels.get_mut(vcpu as usize) else { return false };
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

    /// Allocates the memory for an event, regardless of the entry that it will use. `tables`
    /// returns the LPI tables of the event's target, if LPIs are enabled there. The entries must
    /// already be [reserved](Self::reserve_room).
    #[inline]
    pub(crate) fn reserve_event(
        &mut self,
        saved: SavedLpi,
        tables: impl FnOnce(u32) -> Option<LpiTables>,
        reserved: &mut ReservedLevels,
    ) -> Result<(), OutOfMemory> {
        self.device_entries.ensure_lpi(saved.lpi.index())?;
        let of = saved.configuration.map(|config| (saved.target, config));
        if of.is_some() && of == reserved.last {
            return Ok(());
        }
        reserved.last = of;
        match self.level_of(saved, tables) {
            Some(level) if reserved.insert(saved.target, level) => {
                self.reserve_level(saved.target, level)
            }
            _ => Ok(()),
        }
    }

    /// Allocates the ready bits of all entries for a vCPU and level.
    fn reserve_level(&mut self, vcpu: u32, level: Level) -> Result<(), OutOfMemory> {
        let positions = (0..self.device_entries.chunk_count() * CHUNK_ENTRIES)
            .step_by(ENTRIES_PER_SUMMARY as usize);
        for position in positions.map(Position::new) {
            self.count_work(1);
            self.shared.ensure_ready_bit(vcpu, level, position)?;
        }
        Ok(())
    }

    /// Returns the set without any level, for [`reserve_event`](Self::reserve_event).
    pub(crate) fn no_levels(&self) -> Result<ReservedLevels, OutOfMemory> {
        let levels = try_boxed_slice(self.enabled.vcpus().map(|_| 0))?;
        Ok(ReservedLevels { levels, last: None })
    }

    /// Allocates the memory for an LPI that is pending at a redistributor without an event.
    pub(crate) fn reserve_pending(
        &self,
        saved: SavedLpi,
        tables: Option<LpiTables>,
    ) -> Result<(), OutOfMemory> {
        self.shared.own(saved.target).map_or(Ok(()), |own| own.ensure(saved.lpi))?;
        let Some(level) = self.level_of(saved, |_| tables) else { return Ok(()) };
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
            let end = self.shared.own_position(indices.end).get();
            let mut position = self.shared.own_position(indices.start).get();
            while position < end {
                self.shared.ensure_ready_bit(vcpu, level, Position::new(position))?;
                position = (position + 1).next_multiple_of(ENTRIES_PER_SUMMARY);
            }
        }
        Ok(())
    }

    /// Returns the level of an LPI, or `None` if the LPI will not be enabled.
    #[inline]
    fn level_of(
        &self,
        saved: SavedLpi,
        tables: impl FnOnce(u32) -> Option<LpiTables>,
    ) -> Option<Level> {
        let from_memory = || {
            let tables = tables(saved.target).filter(|tables| tables.covers(saved.lpi))?;
            tables.config(saved.lpi, &*self.memory).ok()
        };
        let config = saved.configuration.or_else(from_memory).filter(Config::enable)?;
        Some(self.config.priorities.level(config.priority()))
    }
}

/// Part of an entry that events with the same target and configuration have in common.
#[derive(Clone, Copy)]
struct Common {
    /// Target and configuration.
    of: (u32, Option<Config>),
    /// Entry with the target, the enable bit and the level.
    entry: Entry,
    /// First INTID beyond the target's tables, or 0 if LPIs are disabled there.
    end: u32,
}

impl Common {
    /// Returns `true` if this applies to the LPI. A configuration in memory applies to one LPI.
    fn is_for(&self, saved: SavedLpi) -> bool {
        saved.configuration.is_some() && self.of == (saved.target, saved.configuration)
    }
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
        self.enabled.set(vcpu, Some(tables));
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
        }
    }

    /// Restores the events of a mapped device, in ascending order.
    pub(crate) fn restore_events(
        &mut self,
        its: ItsIndex,
        device: u32,
        events: impl Iterator<Item = Result<SavedEvent, NoRoom>>,
    ) -> Result<(), NoRoom> {
        let translator = self.translators.get(its).ok_or(NoRoom::Budget)?;
        let (is_open, device_table) = (translator.enabled, translator.device_table());
        let event_bits = translator.event_bits(device).ok_or(NoRoom::Budget)?;
        let dte = device_table.get(device).ok_or(NoRoom::Budget)?;
        // Consecutive events often share the block, and the target and configuration.
        let mut block: Option<(u32, EntryRef)> = None;
        let mut common: Option<Common> = None;
        for event in events {
            let SavedEvent { event, collection, is_mapped, lpi: saved } = event?;
            let (first_event, offset) = (event & !(CHUNK_ENTRIES - 1), event % CHUNK_ENTRIES);
            let first = match block {
                Some((at, first)) if at == first_event => first,
                _ => self.device_entries.attach(dte, event_bits.into(), first_event)?,
            };
            block = Some((first_event, first));
            let known = match common {
                Some(known) if known.is_for(saved) => known,
                _ => self.common(saved),
            };
            common = Some(known);
            let position = first.position.offset_in_chunk(offset);
            if known.of.1.is_none() && known.entry.is_enabled() {
                // The configuration in memory may have changed since the reservation.
                self.shared.ensure_ready_bit(saved.target, known.entry.level(), position)?;
            }
            let is_covered = saved.lpi.get() < known.end;
            let entry = known.entry.with_generation(first.generation).with_mapped(is_mapped);
            let entry = entry.with_lpi_index(saved.lpi.index());
            let entry = entry.with_deliverable(is_covered && is_mapped && is_open);
            let entry = entry.with_pending(saved.pending && is_covered);
            let entry = entry.with_held(saved.pending && !is_covered);
            self.device_entries.give(position.index(), Owner::event(its, collection), saved.lpi);
            // The reset has emptied all list registers, and until now, the entry admits no message.
            self.shared.entries.try_update(position, |_| Some(entry));
            if entry.is_ready() {
                self.set_ready_bit(entry, position);
            }
        }
        Ok(())
    }

    /// Looks up what an event has in common with others of its target and configuration.
    fn common(&self, saved: SavedLpi) -> Common {
        let SavedLpi { lpi, target, configuration, .. } = saved;
        let tables = self.enabled.get(target);
        let covering = tables.as_ref().filter(|tables| tables.covers(lpi));
        let (enabled, level) = match (configuration, covering) {
            (Some(config), _) => self.settings_of(config),
            (None, Some(tables)) => self.settings(target, tables, lpi),
            (None, None) => (false, Level::new(0)),
        };
        let entry = Entry::unmapped(0).with_target(target).with_enabled(enabled).with_level(level);
        let end = tables.map_or(0, |tables| tables.end());
        Common { of: (target, configuration), entry, end }
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
    /// Adds a device with these mapped events, which must be in ascending order.
    pub(crate) fn add_device(&mut self, event_bits: u8, events: impl Iterator<Item = u32>) {
        let event_bits = u32::from(event_bits);
        let (size, depth) = (event_bits.min(CHUNK_BITS), depth(event_bits));
        let mut last: Option<u32> = None;
        for event in events {
            if last.is_some_and(|last| last >> CHUNK_BITS == event >> CHUNK_BITS) {
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
            room.add_device(event_bits, events.iter().copied());
            let parts = |shift: u32| {
                events.iter().map(|event| event >> shift).collect::<BTreeSet<_>>().len() as u64
            };
            let levels = 1..=depth(event_bits.into());
            let nodes: u64 = levels.map(|below| parts(CHUNK_BITS + NODE_BITS * below)).sum();
            prop_assert_eq!((room.chunks(), room.nodes), (parts(CHUNK_BITS), nodes));
        }
    }
}
