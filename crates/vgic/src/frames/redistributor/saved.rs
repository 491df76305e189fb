//! Converts a redistributor's registers to plain data and back.

use super::{LpiRegisters, Redistributor};
use crate::config::SecurityView;
use crate::lpi::LpiTables;
use crate::saved_state::{Problem, RedistributorState};
use crate::wired::{Bank, participation};
use alloc::vec::Vec;
use doorbell_fallible::OutOfMemory;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser, Waker};

impl Redistributor<'_> {
    /// Saves everything except LPIs.
    pub(crate) fn save(self) -> Result<RedistributorState, OutOfMemory> {
        let registers = *self.registers.lpis.lock();
        Ok(RedistributorState {
            ctlr: self.control().with_rwp(false).into_bits(),
            typer: self.typer().with_last(false).into_bits(),
            waker: self.waker().into_bits(),
            propbaser: registers.propbaser.into_bits(),
            pendbaser: registers.pendbaser.into_bits(),
            interrupts: self.wired.save(self.config, Bank::Private(self.cpu))?,
            lpis: Vec::new(),
            enabled_lpis: Vec::new(),
        })
    }

    /// Restores the registers of a redistributor that is in its reset state. `groups` are the
    /// participation bits of the groups that its CPU interface enables. Returns the LPI tables if
    /// LPIs are enabled.
    pub(crate) fn restore(
        self,
        saved: &RedistributorState,
        groups: u32,
    ) -> Result<Option<LpiTables>, Problem> {
        let typer = self.typer().with_last(false).into_bits();
        Problem::unless_same("GICR_TYPER", saved.typer, typer)?;
        let (ctlr, propbaser) = (Ctlr::from(saved.ctlr), Propbaser::from(saved.propbaser));
        let pendbaser = Pendbaser::from(saved.pendbaser);
        let fixed =
            |ctlr: Ctlr| ctlr.into_bits() & Ctlr::new().with_ces(true).with_ir(true).into_bits();
        Problem::unless_same("GICR_CTLR", fixed(ctlr).into(), fixed(self.control()).into())?;
        let has_lpis = self.lpis.is_some();
        let possible =
            self.declined(ctlr) == declined_bits(ctlr) && (has_lpis || !ctlr.enable_lpis());
        Problem::unless(possible && is_complete(ctlr), "control register", saved.ctlr)?;
        let valid =
            self.accepted_propbaser(propbaser) == propbaser && (has_lpis || saved.propbaser == 0);
        Problem::unless(valid, "GICR_PROPBASER", saved.propbaser)?;
        let consumed = !ctlr.enable_lpis() || !pendbaser.pending_table_zero();
        let valid =
            self.accepted_pendbaser(pendbaser) == pendbaser && (has_lpis || saved.pendbaser == 0);
        let valid = valid && consumed;
        Problem::unless(valid, "GICR_PENDBASER", saved.pendbaser)?;
        let participation = self.awake(saved.waker)? | self.declined(ctlr) | groups;
        self.wired.restore_participation(self.cpu, participation);
        self.registers.restore(LpiRegisters {
            enabled: ctlr.enable_lpis(),
            propbaser,
            pendbaser,
            written_pendbaser: saved.pendbaser,
            ignored: [None; 2],
        });
        let id_bits = self.config.lpi_id_bits.filter(|_| ctlr.enable_lpis());
        Ok(id_bits.map(|id_bits| LpiTables::new(propbaser, pendbaser, id_bits)))
    }

    /// Returns the `DPG` bits in `ctlr` that this guest can set.
    fn declined(self, ctlr: Ctlr) -> u32 {
        let settable = match (self.config.one_of_n, self.config.security) {
            (false, _) => 0,
            (true, SecurityView::NonSecure) => participation::DECLINES[1],
            (true, SecurityView::Single) => u32::MAX,
        };
        declined_bits(ctlr) & settable
    }

    fn awake(self, waker: u32) -> Result<u32, Problem> {
        let asleep = Waker::from(waker).processor_sleep();
        let possible = match self.config.security {
            SecurityView::Single => {
                Waker::new().with_processor_sleep(asleep).with_children_asleep(asleep).into_bits()
                    == waker
            }
            SecurityView::NonSecure => waker == 0,
        };
        Problem::unless(possible, "GICR_WAKER", waker)?;
        Ok(if asleep { 0 } else { participation::AWAKE })
    }
}

/// Returns `true` if the model implements all bits that are set.
fn is_complete(ctlr: Ctlr) -> bool {
    let known = Ctlr::new()
        .with_enable_lpis(true)
        .with_ces(true)
        .with_ir(true)
        .with_dpg0(true)
        .with_dpg1_ns(true)
        .with_dpg1_s(true);
    ctlr.into_bits() & !known.into_bits() == 0
}

fn declined_bits(ctlr: Ctlr) -> u32 {
    let bits = [
        (participation::DECLINES[0], ctlr.dpg0()),
        (participation::DECLINES[1], ctlr.dpg1_ns()),
        (participation::DECLINES_SECURE, ctlr.dpg1_s()),
    ];
    bits.into_iter().filter(|(_, set)| *set).fold(0, |bits, (bit, _)| bits | bit)
}
