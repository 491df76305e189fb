//! Converts an ITS to plain data and back.

use super::queue::Queue;
use super::tables::TableRegisters;
use super::{Its, ItsRegisters};
use crate::config::Coherence;
use crate::lpi::{
    Control, ItsIndex, LpiTables, MappedDevice, NoRoom, ReservedLevels, SavedEvent, SavedLpi,
};
use crate::saved_state::{CollectionState, DeviceState, EventState, ItsState, Problem};
use crate::sync::lock::MutexGuard;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_collect, try_collect_results, try_push};
use gic_arch::gits::{Baser, Cbaser, Creadr, Ctlr, Cwriter};
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, Lpi, Shareability};
use msi_types::{DeviceId, EventId};

/// Address bits that MAPD can specify for a translation table.
const ITT_BITS: u64 = 0x000f_ffff_ffff_ff00;

/// ITS whose registers are locked against changes.
pub(crate) struct LockedIts<'a> {
    its: &'a Its,
    state: MutexGuard<'a, ItsRegisters>,
}

/// Register values that were validated for a restore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestoredRegisters {
    enabled: bool,
    queue: Queue,
    tables: TableRegisters,
}

impl Its {
    /// Locks the registers.
    pub(crate) fn lock(&self) -> LockedIts<'_> {
        LockedIts { its: self, state: self.state.lock() }
    }

    /// Returns the ITS's base address, which identifies the ITS in a saved state.
    pub(crate) fn base(&self) -> u64 {
        self.config.base
    }

    /// Returns the LPI core's index of this ITS.
    pub(crate) fn index(&self) -> ItsIndex {
        self.index
    }

    /// Validates the saved registers for this ITS.
    pub(crate) fn restorable(&self, saved: &ItsState) -> Result<RestoredRegisters, Problem> {
        Problem::unless_same("GITS_TYPER", saved.typer, self.config.typer().into_bits())?;
        Problem::unless_same("GITS_IIDR", saved.iidr.into(), self.config.iidr.into_bits().into())?;
        let enabled = Ctlr::from(saved.ctlr).enabled();
        Problem::unless(control(enabled) == saved.ctlr, "GITS_CTLR", saved.ctlr)?;
        let tables = self.restorable_tables(saved)?;
        let base = self.accepted_cbaser(Cbaser::from_bits(saved.cbaser));
        Problem::unless(base.into_bits() == saved.cbaser, "GITS_CBASER", saved.cbaser)?;
        let (read, write) = (Creadr::from_bits(saved.creadr), Cwriter::from_bits(saved.cwriter));
        let queue = Queue::between(base, read, write);
        Problem::unless(queue.creadr().into_bits() == saved.creadr, "GITS_CREADR", saved.creadr)?;
        Problem::unless(
            queue.cwriter().into_bits() == saved.cwriter,
            "GITS_CWRITER",
            saved.cwriter,
        )?;
        Ok(RestoredRegisters { enabled, queue, tables })
    }

    fn restorable_tables(&self, saved: &ItsState) -> Result<TableRegisters, Problem> {
        for (index, value) in (0..).zip(saved.baser) {
            let accepted = TableRegisters::accepted(&self.config, index, Baser::from_bits(value));
            Problem::unless(accepted.into_bits() == value, "GITS_BASER", value)?;
        }
        let [devices, collections, ..] = saved.baser.map(Baser::from_bits);
        // Removing a table removes its mappings, too, so an invalid table can't have any.
        let is_held =
            |state: &CollectionState| state.collection.get() < self.config.held_collections.into();
        let is_unused = [saved.devices.is_empty(), saved.collections.iter().all(is_held)];
        for (table, is_unused) in [devices, collections].into_iter().zip(is_unused) {
            Problem::unless(table.valid() || is_unused, "GITS_BASER", table.into_bits())?;
        }
        Ok(TableRegisters { devices, collections })
    }

    /// Returns the value that `GITS_CBASER` holds after a write of `written`.
    fn accepted_cbaser(&self, written: Cbaser) -> Cbaser {
        Queue::at(match self.config.coherence {
            Coherence::Coherent => written,
            Coherence::NonCoherent => written.with_shareability(Shareability::Non),
        })
        .base
    }

    /// Checks that a collection number is valid.
    pub(crate) fn check_collection(&self, collection: CollectionId) -> Result<(), Problem> {
        let number = collection.get();
        Problem::unless(self.config.names_collection(number), "collection", number)
    }

    /// Checks that the saved mapping of a device is valid. Does not check its events.
    pub(crate) fn check_device(&self, saved: &DeviceState) -> Result<(), Problem> {
        let id = saved.device.get();
        Problem::unless(u64::from(id) >> self.config.device_id_bits == 0, "DeviceID", id)?;
        let bits = saved.event_bits;
        Problem::unless(
            (1..=self.config.event_id_bits).contains(&bits),
            "number of EventID bits",
            bits,
        )?;
        Problem::unless(saved.itt & !ITT_BITS == 0, "translation table", saved.itt)
    }
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
            control.each_event(index, device, |event, collection, saved| {
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
        (saved, targets): (&ItsState, &SavedTargets),
        control: &mut Control,
        vcpu: impl Fn(Affinity) -> u16,
    ) -> Result<(), NoRoom> {
        let index = self.its.index;
        let RestoredRegisters { enabled, queue, tables } = registers;
        (self.state.enabled, self.state.queue, self.state.tables) = (enabled, queue, tables);
        self.state.has_past = queue.base.valid();
        control.restore_its_enabled(index, enabled);
        for (state, vcpu) in saved.collections.iter().zip(&targets.0) {
            control.restore_collection(index, state.collection.get(), *vcpu)?;
        }
        for device in &saved.devices {
            let mapped = MappedDevice { event_bits: device.event_bits, itt: device.itt };
            control.map_device(index, device.device.get(), mapped)?;
            let events = device.events.iter().map(|event| targets.restored(saved, event, &vcpu));
            control.restore_events(index, device.device.get(), events)?;
        }
        Ok(())
    }
}

impl Its {
    /// Reserves the memory that [`restore`](LockedIts::restore) needs in addition to the entry
    /// pool.
    pub(crate) fn reserve(
        &self,
        (saved, targets): (&ItsState, &SavedTargets),
        control: &mut Control,
        vcpu: impl Fn(Affinity) -> u16,
        tables: impl Fn(u32) -> Option<LpiTables>,
        levels: &mut ReservedLevels,
    ) -> Result<(), NoRoom> {
        let devices = saved.devices.iter().map(|device| device.device.get());
        control.reserve_its(self.index, saved.collections.len(), devices)?;
        for event in saved.devices.iter().flat_map(|device| &device.events) {
            let restored = targets.restored(saved, event, &vcpu)?;
            control.reserve_event(restored.lpi, &tables, levels)?;
        }
        Ok(())
    }
}

/// vCPUs of a state's mapped collections, in the same order.
pub(crate) struct SavedTargets(Vec<u16>);

impl SavedTargets {
    /// Looks up the vCPUs. `vcpu` maps an affinity to its vCPU's index.
    pub(crate) fn of(
        saved: &ItsState,
        vcpu: impl Fn(Affinity) -> u16,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self(try_collect(saved.collections.iter().map(|state| vcpu(state.target)))?))
    }

    /// Returns a collection's vCPU, or `None` if the collection is not mapped.
    #[inline]
    fn get(&self, saved: &ItsState, collection: CollectionId) -> Option<u16> {
        // Guests usually number their collections from 0.
        let number = usize::from(collection.get());
        let at = match saved.collections.get(number) {
            Some(state) if state.collection == collection => number,
            _ => saved.collections.binary_search_by_key(&collection, |it| it.collection).ok()?,
        };
        self.0.get(at).copied()
    }

    /// Returns an event. Its LPI targets the collection's vCPU or, if the collection is unmapped,
    /// the vCPU that keeps the pending state.
    #[inline]
    fn restored(
        &self,
        saved: &ItsState,
        event: &EventState,
        vcpu: &impl Fn(Affinity) -> u16,
    ) -> Result<SavedEvent, NoRoom> {
        let mapped = self.get(saved, event.collection);
        let lpi = SavedLpi {
            lpi: Lpi::try_from(event.intid).map_err(|_| NoRoom::Budget)?,
            target: mapped.or_else(|| event.stays_at.map(vcpu)).unwrap_or(0).into(),
            pending: event.pending,
            configuration: event.configuration.map(Config::from_bits),
        };
        let (event, collection) = (event.event.get(), event.collection.get());
        Ok(SavedEvent { event, collection, is_mapped: mapped.is_some(), lpi })
    }
}
