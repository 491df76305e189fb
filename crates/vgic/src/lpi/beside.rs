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
use gic_arch::its::Command;
use msi_types::Cpu;

impl LpiCore {
    /// Returns `true` if a command need not be executed alone: the others always must.
    pub(crate) const fn may_execute_beside(command: &Command) -> bool {
        use Command::{Clear, Int, Inv, Movi, Sync};
        matches!(command, Int { .. } | Clear { .. } | Inv { .. } | Movi { .. } | Sync { .. })
    }

    /// Executes INT, CLEAR, INV or MOVI for a mapped event of a mapped collection. Returns `false`
    /// if the command is another one, or must be executed alone, even if it was begun here.
    pub(crate) fn execute_beside(
        &self,
        control: &Control,
        its: ItsIndex,
        command: Command,
    ) -> bool {
        let (Command::Int { device, event }
        | Command::Clear { device, event }
        | Command::Inv { device, event }
        | Command::Movi { device, event, .. }) = command
        else {
            return false;
        };
        let is_mapped = |collection| control.collection(its, collection).is_some();
        let event = control.event(its, device.get(), event.get());
        let Some(event) = event.filter(|event| is_mapped(event.collection)) else { return false };
        let (state, location) = (control.state(), Location::Event(event.index()));
        let mut rewrites = self.rewriters.lock(self.shared.load(location).lpi_index());
        match command {
            Command::Movi { collection, .. } => {
                let collection = collection.get();
                is_mapped(collection)
                    && state.move_event(&mut rewrites, event, collection) == Ok(true)
            }
            Command::Inv { .. } => state.invalidate_event(&mut rewrites, location).is_ok(),
            Command::Clear { .. } => {
                state.clear_event(&mut rewrites, location);
                true
            }
            _ => {
                state.signal_event(event);
                true
            }
        }
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
