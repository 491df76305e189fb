//! Converts an ITS to plain data and back.

use super::queue::Queue;
use super::tables::TableRegisters;
use super::{Its, ItsConfig, LockedIts};
use crate::config::Coherence;
use crate::lpi::{Control, MappedDevice, each_event};
use crate::saved_state::{CollectionState, DeviceState, EventState, ItsState, Problem};
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_collect, try_collect_results, try_push};
use gic_arch::gits::{Baser, Cbaser, Creadr, Ctlr, Cwriter};
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, Shareability};
use msi_types::{DeviceId, EventId};

/// Address bits that MAPD can specify for a translation table.
const ITT_BITS: u64 = 0x000f_ffff_ffff_ff00;

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

    /// Restores the registers of an ITS that is in its reset state. Returns `GITS_CTLR.Enabled`.
    pub(crate) fn restore_registers(&mut self, saved: &ItsState) -> Result<bool, Problem> {
        let config = &self.its.config;
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
        (self.state.enabled, self.state.queue, self.state.tables) = (enabled, queue, tables);
        self.state.has_past = base.valid();
        Ok(enabled)
    }
}
