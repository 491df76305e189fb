//! Converts an ITS to plain data and back.

use super::queue::Queue;
use super::tables::TableRegisters;
use super::{Its, ItsConfig, LockedIts};
use crate::config::Coherence;
use crate::lpi::{
    Control, ItsIndex, LpiTables, MappedDevice, NoRoom, Reservation, Restoration, Room,
    SavedEvents, each_event,
};
use crate::saved_state::{CollectionState, DeviceState, EventRun, EventState, ItsState, Problem};
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_collect, try_collect_results, try_push};
use gic_arch::gits::{Baser, Cbaser, Creadr, Ctlr, Cwriter};
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, Lpi, Shareability};
use msi_types::{DeviceId, EventId};

/// Address bits that MAPD can specify for a translation table.
const ITT_BITS: u64 = 0x000f_ffff_ffff_ff00;

/// Register values that were validated for a restore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestoredRegisters {
    enabled: bool,
    queue: Queue,
    tables: TableRegisters,
}

impl RestoredRegisters {
    /// Validates the saved registers for an ITS.
    pub(crate) fn of(its: &Its, saved: &ItsState) -> Result<Self, Problem> {
        let config = &its.config;
        Problem::unless_same("GITS_TYPER", saved.typer, config.typer().into_bits())?;
        Problem::unless_same("GITS_IIDR", saved.iidr.into(), config.iidr.into_bits().into())?;
        let enabled = Ctlr::from(saved.ctlr).enabled();
        Problem::unless(control(enabled) == saved.ctlr, "GITS_CTLR", saved.ctlr)?;
        let tables = restorable_tables(config, saved)?;
        let base = accepted_cbaser(config, Cbaser::from_bits(saved.cbaser));
        Problem::unless(base.into_bits() == saved.cbaser, "GITS_CBASER", saved.cbaser)?;
        let (read, write) = (Creadr::from_bits(saved.creadr), Cwriter::from_bits(saved.cwriter));
        let queue = Queue::between(base, read, write);
        Problem::unless(queue.creadr().into_bits() == saved.creadr, "GITS_CREADR", saved.creadr)?;
        Problem::unless(
            queue.cwriter().into_bits() == saved.cwriter,
            "GITS_CWRITER",
            saved.cwriter,
        )?;
        Ok(Self { enabled, queue, tables })
    }
}

fn restorable_tables(config: &ItsConfig, saved: &ItsState) -> Result<TableRegisters, Problem> {
    for (index, value) in (0..).zip(saved.baser) {
        let accepted = TableRegisters::accepted(config, index, Baser::from_bits(value));
        Problem::unless(accepted.into_bits() == value, "GITS_BASER", value)?;
    }
    let [devices, collections, ..] = saved.baser.map(Baser::from_bits);
    // Removing a table removes its mappings, too, so an invalid table can't have any.
    let is_held = |state: &CollectionState| state.collection.get() < config.held_collections.into();
    let is_unused = [saved.devices.is_empty(), saved.collections.iter().all(is_held)];
    for (table, is_unused) in [devices, collections].into_iter().zip(is_unused) {
        Problem::unless(table.valid() || is_unused, "GITS_BASER", table.into_bits())?;
    }
    Ok(TableRegisters { devices, collections })
}

/// Returns the value that `GITS_CBASER` holds after a write of `written`.
fn accepted_cbaser(config: &ItsConfig, written: Cbaser) -> Cbaser {
    Queue::at(match config.coherence {
        Coherence::Coherent => written,
        Coherence::NonCoherent => written.with_shareability(Shareability::Non),
    })
    .base
}

/// Checks that a collection number is valid.
pub(crate) fn check_collection(its: &Its, collection: CollectionId) -> Result<(), Problem> {
    let number = collection.get();
    Problem::unless(its.config.names_collection(number), "collection", number)
}

/// Checks that the saved mapping of a device is valid. Does not check its events.
pub(crate) fn check_device(its: &Its, saved: &DeviceState) -> Result<(), Problem> {
    let id = saved.device.get();
    Problem::unless(u64::from(id) >> its.config.device_id_bits == 0, "DeviceID", id)?;
    let bits = saved.event_bits;
    Problem::unless(
        (1..=its.config.event_id_bits).contains(&bits),
        "number of EventID bits",
        bits,
    )?;
    Problem::unless(saved.itt & !ITT_BITS == 0, "translation table", saved.itt)
}

/// Returns `GITS_CTLR` for an ITS without unfinished work.
fn control(enabled: bool) -> u32 {
    Ctlr::new().with_enabled(enabled).with_quiescent(!enabled).into_bits()
}

impl LockedIts<'_> {
    /// Saves the ITS. `affinity` maps a vCPU's index to its affinity.
    pub(crate) fn save(
        &self,
        control_side: &Control,
        affinity: impl Fn(u32) -> Affinity,
    ) -> Result<ItsState, OutOfMemory> {
        let Self { its, state } = self;
        let collections =
            control_side.mapped_collections(its.index).map(|(collection, vcpu)| CollectionState {
                collection: CollectionId::new(collection),
                target: affinity(vcpu.into()),
            });
        Ok(ItsState {
            base: its.config.base,
            ctlr: control(state.enabled),
            iidr: its.config.iidr.into_bits(),
            typer: its.config.typer().into_bits(),
            cbaser: state.queue.base.into_bits(),
            cwriter: state.queue.cwriter().into_bits(),
            creadr: state.queue.creadr().into_bits(),
            baser: core::array::from_fn(|index| {
                u32::try_from(index).map_or(0, |index| state.tables.get(index).into_bits())
            }),
            collections: try_collect(collections)?,
            devices: self.save_devices(control_side, &affinity)?,
        })
    }

    fn save_devices(
        &self,
        control: &Control,
        affinity: &impl Fn(u32) -> Affinity,
    ) -> Result<Vec<DeviceState>, OutOfMemory> {
        let index = self.its.index;
        try_collect_results(control.mapped_devices(index).map(|(device, mapped)| {
            let mut events = Vec::new();
            each_event(control, index, device, |event, collection, saved| {
                let unmapped = control.collection(index, collection).is_none();
                let state = EventState {
                    event: EventId::new(event),
                    intid: saved.lpi.intid(),
                    collection: CollectionId::new(collection),
                    pending: saved.pending,
                    stays_at: unmapped.then(|| affinity(saved.target)),
                    configuration: saved.configuration.map(Config::into_bits),
                };
                Ok(try_push(&mut events, state)?)
            })?;
            let MappedDevice { event_bits, itt } = mapped;
            Ok(DeviceState { device: DeviceId::new(device), event_bits, itt, events })
        }))
    }

    /// Restores a validated state into an ITS that is in its reset state. `vcpu` maps an affinity
    /// to its vCPU's index.
    pub(crate) fn restore(
        &mut self,
        registers: RestoredRegisters,
        mappings: &SavedMappings<'_>,
        restoration: &mut Restoration<'_>,
        vcpu: impl Fn(Affinity) -> u16,
    ) -> Result<(), NoRoom> {
        let index = self.its.index;
        let RestoredRegisters { enabled, queue, tables } = registers;
        (self.state.enabled, self.state.queue, self.state.tables) = (enabled, queue, tables);
        self.state.has_past = queue.base.valid();
        let numbers = mappings.saved.collections.iter().map(|state| state.collection.get());
        restoration.its(index, enabled, numbers.zip(mappings.targets.iter().copied()))?;
        for (device, runs) in mappings.devices() {
            let mapped = MappedDevice { event_bits: device.event_bits, itt: device.itt };
            let events = runs.iter().map(|run| SavedMappings::resolved(run, &vcpu));
            let target = |collection| mappings.target(collection);
            restoration.device((index, device.device.get()), mapped, events, target)?;
        }
        Ok(())
    }
}

/// Collections and events of a saved ITS, resolved for this machine.
pub(crate) struct SavedMappings<'s> {
    saved: &'s ItsState,
    /// vCPUs of the mapped collections, in the same order.
    targets: Vec<u16>,
    /// Runs of the events of all devices, in order.
    runs: Vec<EventRun<'s>>,
    /// For each device, the index in `runs` beyond its own.
    ends: Vec<usize>,
}

impl<'s> SavedMappings<'s> {
    /// Resolves the mappings. `vcpu` maps an affinity to its vCPU's index. `check` validates each
    /// device, and `check_run` a [run](DeviceState::runs) of its events, given the event before it.
    pub(crate) fn of<E: From<OutOfMemory>>(
        saved: &'s ItsState,
        vcpu: impl Fn(Affinity) -> u16,
        check: impl Fn(&DeviceState) -> Result<(), E>,
        check_run: impl Fn(&DeviceState, Option<EventId>, EventRun<'s>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let targets = try_collect(saved.collections.iter().map(|state| vcpu(state.target)));
        let targets = targets.map_err(OutOfMemory::from)?;
        let mut mappings = Self { saved, targets, runs: Vec::new(), ends: Vec::new() };
        for device in &saved.devices {
            check(device)?;
            let mut before = None;
            for run in device.runs() {
                check_run(device, before, run)?;
                before = run.events.last().map(|event| event.event);
                try_push(&mut mappings.runs, run).map_err(OutOfMemory::from)?;
            }
            let end = mappings.runs.len();
            try_push(&mut mappings.ends, end).map_err(OutOfMemory::from)?;
        }
        Ok(mappings)
    }

    /// Iterates over the DeviceIDs, in ascending order.
    pub(crate) fn device_ids(&self) -> impl ExactSizeIterator<Item = u32> {
        self.saved.devices.iter().map(|device| device.device.get())
    }

    /// Adds the devices to the room that a restore needs.
    pub(crate) fn add_to(&self, room: &mut Room) {
        for (device, runs) in self.devices() {
            let ends =
                runs.iter().filter_map(|run| Some((run.events.first()?, run.events.last()?)));
            let events = ends.map(|(first, last)| first.event.get()..=last.event.get());
            room.add_device(device.event_bits, events);
        }
    }

    /// Reserves the memory that [`restore`](LockedIts::restore) needs for this ITS in addition to
    /// the entry pool.
    pub(crate) fn reserve(
        &self,
        its: ItsIndex,
        reservation: &mut Reservation<'_>,
        vcpu: impl Fn(Affinity) -> u16,
        tables: impl Fn(u32) -> Option<LpiTables>,
    ) -> Result<(), NoRoom> {
        let collections = self.saved.collections.len();
        reservation.its(its, collections, self.device_ids())?;
        for run in &self.runs {
            let (events, groups) = Self::resolved(run, &vcpu)?;
            let target = |collection| self.target(collection);
            reservation.events(events, groups, target, &tables)?;
        }
        Ok(())
    }

    /// Iterates over the devices with their runs of events.
    fn devices(&self) -> impl Iterator<Item = (&'s DeviceState, &[EventRun<'s>])> {
        let starts = core::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends).map(|(start, end)| self.runs.get(*start..*end));
        self.saved.devices.iter().zip(ranges.map(Option::unwrap_or_default))
    }

    /// Returns a run of events with its collections, each with the number of consecutive events in
    /// it.
    fn resolved(
        run: &EventRun<'s>,
        vcpu: impl Fn(Affinity) -> u16,
    ) -> Result<(SavedEvents, impl Iterator<Item = (CollectionId, u32)>), NoRoom> {
        let first = run.events.first().ok_or(NoRoom::Budget)?;
        let events = SavedEvents {
            first: first.event.get(),
            count: u32::try_from(run.events.len()).map_err(|_| NoRoom::Budget)?,
            lpi: Lpi::try_from(first.intid).map_err(|_| NoRoom::Budget)?,
            collection: first.collection,
            pending: first.pending,
            stays_at: first.stays_at.map_or(0, vcpu),
            configuration: first.configuration.map(Config::from_bits),
        };
        Ok((events, run.groups()))
    }

    /// Returns a collection's vCPU, or `None` if the collection is not mapped.
    fn target(&self, collection: CollectionId) -> Option<u16> {
        // Guests usually number their collections from 0.
        let number = usize::from(collection.get());
        let collections = &self.saved.collections;
        let at = match collections.get(number) {
            Some(state) if state.collection == collection => number,
            _ => collections.binary_search_by_key(&collection, |it| it.collection).ok()?,
        };
        self.targets.get(at).copied()
    }
}
