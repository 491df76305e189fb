//! Restores mappings, pending LPIs and enabled direct LPIs from plain data. Takes time proportional
//! to their number, and reads guest memory only for LPIs whose configuration a state doesn't
//! contain.

use super::control::Control;
use super::entry::{Entry, Level};
use super::entry_allocator::Owner;
use super::itt::{CHUNK_ENTRIES, EntryRef};
use super::mapping::{ItsIndex, MappedDevice, NoRoom};
use super::ready_bitmap::ENTRIES_PER_SUMMARY;
use super::saved::{SavedEvents, SavedLpi};
use super::shared::Location;
use super::sweep::Settings;
use super::tables::LpiTables;
use core::ops::Range;
use doorbell_fallible::OutOfMemory;
use gic_arch::Lpi;
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;

/// Indices of consecutive LPIs with the same configuration.
pub(crate) type EnabledRange = (Range<u32>, Config);

/// Restore of the state into a freshly reset core. After an error, the core must be reset again.
pub(crate) struct Restoration<'a>(&'a mut Control);

impl<'a> Restoration<'a> {
    pub(crate) const fn new(control: &'a mut Control) -> Self {
        Self(control)
    }

    /// Restores whether an ITS accepts messages.
    pub(crate) fn its(&mut self, its: ItsIndex, enabled: bool) {
        if let Some(translator) = self.0.translators.get_mut(its) {
            translator.enabled = enabled;
            translator.publish(enabled);
        }
    }

    /// Maps a collection to a vCPU.
    pub(crate) fn collection(
        &mut self,
        its: ItsIndex,
        collection: CollectionId,
        vcpu: u16,
    ) -> Result<(), OutOfMemory> {
        let translator = self.0.translators.get_mut(its);
        translator.map_or(Ok(()), |its| its.map_collection(collection.get(), vcpu))
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
                self.restore_direct_lpis(vcpu, next..first, Config::new())?;
                self.restore_direct_lpis(vcpu, first..last, config)?;
                next = last;
            }
        }
        Ok(())
    }

    /// Gives the direct LPIs with these indices the same configuration.
    fn restore_direct_lpis(
        &self,
        vcpu: u32,
        indices: Range<u32>,
        config: Config,
    ) -> Result<(), OutOfMemory> {
        let (enabled, level) = self.0.settings_of(config);
        for index in indices.clone() {
            if enabled && (index == indices.start || index % ENTRIES_PER_SUMMARY == 0) {
                let position = self.0.shared.own_position(index);
                self.0.shared.ensure_ready_bit(vcpu, level, position)?;
            }
            self.0.shared.update(Location::Own { vcpu, index }, |entry| {
                let open = entry.with_mapped(true).with_deliverable(true);
                open.with_enabled(enabled).with_level(level)
            });
        }
        Ok(())
    }

    /// Maps a device.
    pub(crate) fn device(
        &mut self,
        its: ItsIndex,
        device: u32,
        mapped: MappedDevice,
    ) -> Result<(), NoRoom> {
        self.0.map_device(its, device, mapped)
    }

    /// Restores events of a device with their collections, each with the number of consecutive
    /// events in it.
    pub(crate) fn events(
        &mut self,
        (its, device): (ItsIndex, u32),
        mut events: SavedEvents,
        mut groups: impl Iterator<Item = (CollectionId, u32)>,
    ) -> Result<(), NoRoom> {
        self.0.device_entries.by_lpi.ensure(events.lpi_indices())?;
        let MappedDevice { event_bits, .. } = self.0.device(its, device).ok_or(NoRoom::Budget)?;
        let device_table = self.0.translators.get(its).ok_or(NoRoom::Budget)?.device_table();
        let dte = device_table.get(device).ok_or(NoRoom::Budget)?;
        let settings = self.settings_of_events(its, &events);
        let mut group = (events.collection, 0);
        while events.count > 0 {
            let mut first = self.0.device_entries.attach(dte, event_bits.into(), events.first)?;
            let (mut rest, others) = events.split(CHUNK_ENTRIES - events.first % CHUNK_ENTRIES);
            while rest.count > 0 {
                if group.1 == 0 {
                    group = groups.next().ok_or(NoRoom::Budget)?;
                }
                let (alike, others) = rest.split(group.1);
                self.restore_group((its, group.0), &first, alike, settings)?;
                first.position = first.position.offset_in_chunk(alike.count);
                group.1 -= alike.count;
                rest = others;
            }
            events = others;
        }
        Ok(())
    }

    /// Restores events of one collection, whose entries are in one block, from `first` on. On
    /// error, the entries have no owner.
    fn restore_group(
        &mut self,
        (its, collection): (ItsIndex, CollectionId),
        first: &EntryRef,
        events: SavedEvents,
        (enabled, level): (bool, Level),
    ) -> Result<(), OutOfMemory> {
        let mapped = self.0.collection(its, collection.get());
        let is_open = self.0.translators.get(its).is_some_and(|its| its.enabled);
        let vcpu = mapped.unwrap_or(events.stays_at).into();
        if enabled {
            self.0.shared.ensure_ready_bit(vcpu, level, first.position)?;
        }
        let end = self.0.enabled.get(vcpu).map_or(0, |tables| tables.end());
        let end = end.saturating_sub(Lpi::FIRST.get());
        let idle = Entry::unmapped(first.generation())
            .with_enabled(enabled)
            .with_level(level)
            .with_target(vcpu)
            .with_mapped(mapped.is_some());
        let open = idle.with_deliverable(mapped.is_some() && is_open);
        let covered = open.with_pending(events.pending);
        let uncovered = idle.with_held(events.pending);
        let index = first.position.index();
        self.0.device_entries.by_lpi.insert_all(events.lpi_indices(), index);
        let owner = Owner::event(its, collection.get());
        self.0.device_entries.allocator.set_owners(index, events.count, owner);
        // The reset has emptied all list registers, and until now, the entries admit no message.
        self.0.shared.entries.store(
            first.position,
            events.lpi_indices().map(|lpi_index| {
                let entry = if lpi_index < end { covered } else { uncovered };
                entry.with_lpi_index(lpi_index)
            }),
        );
        if events.pending {
            for position in (0..events.count).map(|at| first.position.offset_in_chunk(at)) {
                let entry = self.0.shared.entries.load(position);
                if entry.is_ready() {
                    self.0.set_ready_bit(entry, position);
                }
            }
        }
        Ok(())
    }

    /// Returns the enable bit and level of events. Reads the configuration of a single event from
    /// memory if necessary.
    fn settings_of_events(&self, its: ItsIndex, events: &SavedEvents) -> (bool, Level) {
        let mapped = self.0.collection(its, events.collection.get());
        let vcpu = mapped.unwrap_or(events.stays_at).into();
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
