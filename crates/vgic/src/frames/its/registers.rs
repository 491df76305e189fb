//! The ITS register frames (IHI 0069 §12.19), as a table over [`gits::REGISTERS`].

use super::queue::Queue;
use super::tables::{TableRegisters, check};
use super::{Its, ItsRegisters};
use crate::config::Coherence;
use crate::frames::registers::{
    Frame, FrameIndex, ID_REGISTERS, Lanes, Register, identification, low_word, register,
};
use crate::monitor::events::{FaultDetail, FaultReason};
use gic_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter};
use gic_arch::{Reg, Shareability};
use msi_types::explain::TableRegister;

impl<'a> Frame<'a, &'a Its> {
    /// Registers in both frames. Writes to `GITS_TRANSLATER` from a CPU have no effect, because
    /// they don't carry a DeviceID.
    const ITS_REGISTERS: &'a [Register<&'a Its>] = &[
        register!(
            gits::CTLR,
            value | its,
            _ | its.read_ctlr().into_bits().into(),
            |its, _, lanes| its.set_ctlr(lanes)
        ),
        register!(gits::IIDR, constant | its, _ | its.config.iidr.into_bits().into()),
        register!(gits::TYPER, constant | its, _ | its.config.typer().into_bits()),
        register!(gits::MPAMIDR, zero),
        register!(gits::PARTIDR, zero),
        register!(gits::MPIDR, zero),
        register!(gits::STATUSR, zero),
        register!(gits::UMSIR, zero),
        register!(
            gits::CBASER,
            value | its,
            _ | its.state.lock().queue.base.into_bits(),
            |its, _, lanes| its.set_cbaser(lanes)
        ),
        register!(
            gits::CWRITER,
            value | its,
            _ | its.state.lock().queue.cwriter().into_bits(),
            |its, _, lanes| its.set_cwriter(lanes)
        ),
        register!(gits::CREADR, constant | its, _ | its.creadr()),
        register!(
            gits::BASER,
            value | its,
            index | its.state.lock().tables.get(index).into_bits(),
            |its, index, lanes| its.set_baser(index, lanes)
        ),
        Register::constant(ID_REGISTERS, |_, index| identification(index, 0x94)),
        register!(gits::TRANSLATER, trigger | _, _, _ | {}),
    ];

    /// Both ITS frames.
    pub(super) const ITS: Self =
        Frame { registers: Self::ITS_REGISTERS, index: &FrameIndex::of(Self::ITS_REGISTERS) };
}

#[cfg(not(shuttle))]
#[cfg(test)]
impl Its {
    /// Returns the register table.
    pub(super) fn registers<'a>() -> &'a [Register<&'a Self>] {
        Frame::ITS.registers
    }
}

impl Its {
    /// Reads `GITS_CTLR`. Continues the work even if the ITS is disabled. Otherwise, a guest that
    /// polls for quiescence would wait forever.
    fn read_ctlr(&self) -> Ctlr {
        let mut state = self.state.lock();
        if !state.enabled {
            self.run(&mut state);
        }
        let ctlr = self.ctlr(&state);
        state.awaits_quiescence &= !ctlr.quiescent();
        ctlr
    }

    /// Changes the registers, then does work within the budget of one access.
    fn change<R>(&self, change: impl FnOnce(&mut ItsRegisters) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.run(&mut state);
        result
    }

    /// Returns `GITS_CTLR`. `Enabled` reads as zero until the ITS is fully enabled.
    fn ctlr(&self, state: &ItsRegisters) -> Ctlr {
        let quiescent = !state.enabled && self.read_lpis().is_quiescent(self.index);
        let admits = self.read_lpis().is_admitting(self.index);
        Ctlr::new().with_enabled(state.enabled && !admits).with_quiescent(quiescent)
    }

    /// Writes `GITS_CTLR`. Only starts to enable the ITS. Callers must
    /// [finish](Self::finish_enabling) this before the guest resumes.
    fn set_ctlr(&self, lanes: Lanes) {
        self.change(|state| {
            let before = Ctlr::new().with_enabled(state.enabled);
            let written = lanes.over(before.into_bits().into());
            let enabled = Ctlr::from_bits(low_word(written)).enabled();
            if enabled != state.enabled {
                state.enabled = enabled;
                state.awaits_quiescence = !enabled;
                if enabled {
                    self.check_tables(state);
                }
                self.lpis
                    .with_kicks_deferred(|control| control.set_its_enabled(self.index, enabled));
            }
        });
        self.give_up_enabling(&mut self.state.lock());
    }

    /// Records faults in the queue and tables that the ITS is about to use.
    fn check_tables(&self, state: &ItsRegisters) {
        if let Some(written) = state.queue.unaligned() {
            let detail = FaultDetail::Value(written.into_bits());
            self.fault(gits::CBASER.offset(), FaultReason::UnalignedQueue, detail);
        }
        for (register, table) in gits::BASER.iter().zip(state.tables.all()) {
            let checked = check(table, self.read_lpis().memory());
            if let Err((reason, detail)) = checked {
                self.fault(register.offset(), reason, detail);
            }
        }
    }

    fn set_cbaser(&self, lanes: Lanes) {
        let mut state = self.state.lock();
        if state.enabled {
            state.ignored.cbaser = Some(lanes.over(state.queue.written().into_bits()));
            return self.in_use(gits::CBASER.offset(), lanes);
        }
        state.ignored.cbaser = None;
        // The guest may write the register as two words, so merge this word with the previous
        // value.
        let written = Cbaser::from_bits(lanes.over(state.queue.written().into_bits()));
        self.check_haste(&mut state, TableRegister::Cbaser, written.into_bits());
        state.queue = Queue::at(match self.config.coherence {
            Coherence::Coherent => written,
            Coherence::NonCoherent => written.with_shareability(Shareability::Non),
        });
    }

    fn set_cwriter(&self, lanes: Lanes) {
        self.change(|state| {
            let written = lanes.over(state.queue.cwriter().into_bits());
            state.queue.set_cwriter(Cwriter::from_bits(written));
        });
    }

    /// Reads `GITS_CREADR`, then does work so that a polling guest makes progress. The returned
    /// value doesn't reflect that work.
    fn creadr(&self) -> u64 {
        let mut state = self.state.lock();
        let creadr = state.queue.creadr().into_bits();
        if !state.is_done {
            self.run(&mut state);
        }
        creadr
    }

    /// Writes `GITS_BASER<index>`. Clearing `Valid` also removes the table's mappings. Collections
    /// held in the ITS itself aren't in a table, so they stay mapped.
    fn set_baser(&self, index: u32, lanes: Lanes) {
        let mut state = self.state.lock();
        let old = state.tables.get(index);
        let ignored = state.enabled.then(|| lanes.over(old.into_bits()));
        if let Some(place) = state.ignored.baser.get_mut(index as usize) {
            *place = ignored;
        }
        if ignored.is_some() {
            return gits::BASER.get(index).into_iter().for_each(|register| {
                self.in_use(register.offset(), lanes);
            });
        }
        let new = TableRegisters::accepted(
            &self.config,
            index,
            Baser::from_bits(lanes.over(old.into_bits())),
        );
        if let Ok(index @ 0..=1) = u8::try_from(index) {
            self.check_haste(&mut state, TableRegister::Baser(index), new.into_bits());
        }
        match index {
            0 => state.tables.devices = new,
            1 => state.tables.collections = new,
            _ => return,
        }
        if old.valid() && !new.valid() {
            self.lpis.with_kicks_deferred(|control| match index {
                0 => control.unmap_all_devices(self.index),
                _ => {
                    control.unmap_collections_from(self.index, self.config.held_collections.into());
                }
            });
            self.run(&mut state);
        }
    }

    /// Records a write to a base register if the guest has disabled the ITS, but did not wait for
    /// `Quiescent`. Hardware may still use the old table or queue then.
    fn check_haste(&self, state: &mut ItsRegisters, register: TableRegister, value: u64) {
        if state.awaits_quiescence {
            state.hasty = Some((register, value));
            let offset = match register {
                TableRegister::Baser(index) => gits::BASER.get(index.into()).map(Reg::offset),
                _ => Some(gits::CBASER.offset()),
            };
            let (reason, detail) = (FaultReason::ItsNotQuiescent, FaultDetail::Value(value));
            if let Some(offset) = offset {
                self.fault(offset, reason, detail);
            }
        } else if state.hasty.is_some_and(|(hasty, _)| hasty == register) {
            state.hasty = None;
        }
    }

    fn in_use(&self, register: u32, lanes: Lanes) {
        let detail = FaultDetail::Value(lanes.over(0));
        self.fault(register, FaultReason::ItsTablesInUse, detail);
    }
}
