//! Commands and register writes that only rewrite the entries of one LPI. Several ITSes and
//! redistributors can execute them at the same time: the thread locks the command state for
//! reading, and then the LPI.
//!
//! The LPI's lock is needed when two threads reread the LPI's configuration. Without it, the thread
//! that read the older byte could be the last to write the entry.

use super::LpiCore;
use super::control::Control;
use super::mapping::ItsIndex;
use super::shared::Location;
use doorbell_fallible::OutOfMemory;
use gic_arch::Lpi;
use gic_arch::its::{CollectionId, Command};
use msi_types::{Cpu, DeviceId, EventId};

impl LpiCore {
    /// Returns `true` if a command need not be executed alone: the others always must.
    pub(crate) const fn may_execute_beside(command: &Command) -> bool {
        use Command::{Invall, Mapc, Mapd, Movall};
        !matches!(command, Mapd { .. } | Mapc { .. } | Invall { .. } | Movall { .. })
    }

    /// Executes a command for one event of a mapped collection. Returns `false` if the command is
    /// another one, or must be executed alone, even if it was begun here.
    pub(crate) fn execute_beside(
        &self,
        control: &Control,
        its: ItsIndex,
        command: Command,
    ) -> bool {
        let (device, event) = match command {
            Command::Mapti { device, event, intid, collection } => {
                return self.map_beside(control, its, (device, event), intid, collection);
            }
            Command::Mapi { device, event, collection } => {
                return self.map_beside(control, its, (device, event), event.get(), collection);
            }
            Command::Int { device, event }
            | Command::Clear { device, event }
            | Command::Discard { device, event }
            | Command::Inv { device, event }
            | Command::Movi { device, event, .. } => (device, event),
            _ => return false,
        };
        let is_mapped = |collection| control.collection(its, collection).is_some();
        let event = control.event(its, device.get(), event.get());
        let Some(event) = event.filter(|event| is_mapped(event.collection)) else { return false };
        let (state, index) = (control.state(), event.index());
        let location = Location::Event(index);
        let mut rewrites = self.rewriters.lock(self.shared.load(location).lpi_index());
        match command {
            Command::Movi { collection, .. } => {
                let collection = collection.get();
                is_mapped(collection)
                    && state.move_event(&mut rewrites, event, collection) == Ok(true)
            }
            Command::Inv { .. } => state.invalidate_event(&mut rewrites, index) == Ok(true),
            Command::Clear { .. } => state.clear_event(&mut rewrites, index),
            Command::Discard { .. } => state.discard_only_event(&mut rewrites, index),
            _ => {
                state.signal_event(event);
                true
            }
        }
    }

    /// Executes MAPTI and MAPI, if the command need not be executed alone.
    fn map_beside(
        &self,
        control: &Control,
        its: ItsIndex,
        (device, event): (DeviceId, EventId),
        intid: u32,
        collection: CollectionId,
    ) -> bool {
        let Some(lpi) = Lpi::try_from(intid).ok().filter(|lpi| control.implements(*lpi)) else {
            return false;
        };
        let (event, collection) = ((device.get(), event.get()), collection.get());
        let state = control.state();
        let mut rewrites = self.rewriters.lock(lpi.index());
        state.is_mapped_so(its, event, lpi, collection)
            || state.map_only_event(&mut rewrites, its, event, lpi, collection).is_some()
    }

    /// Handles a write to `GICR_INVLPIR`.
    pub(crate) fn invalidate(&self, cpu: Cpu, lpi: Lpi) -> Result<(), OutOfMemory> {
        if self.invalidate_beside(cpu, lpi) {
            self.send_kicks();
            return Ok(());
        }
        self.with(|control| control.invalidate(cpu.get(), lpi))
    }

    /// Handles the write, unless several events are mapped to the LPI or memory is exhausted.
    fn invalidate_beside(&self, cpu: Cpu, lpi: Lpi) -> bool {
        let control = self.read(cpu.index());
        let mut rewrites = self.rewriters.lock(lpi.index());
        !control.implements(lpi)
            || control.state().reload_lpi(&mut rewrites, cpu.get(), lpi) == Ok(true)
    }

    /// Handles a write to `GICR_CLRLPIR`. Machines with this register don't have events, so the LPI
    /// is pending only in the redistributor's own entry.
    pub(crate) fn clear_lpi(&self, cpu: Cpu, lpi: Lpi) {
        let control = self.read(cpu.index());
        if control.state().enabled.get(cpu.get()).is_some_and(|tables| tables.covers(lpi)) {
            let mut rewrites = self.rewriters.lock(lpi.index());
            control.state().clear(&mut rewrites, Location::own(cpu.get(), lpi));
        }
        drop(control);
        self.send_kicks();
    }
}
