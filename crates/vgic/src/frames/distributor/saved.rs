//! Converts the distributor's registers to plain data and back.

use super::Distributor;
use crate::saved_state::{DistributorState, Problem};
use crate::wired::Bank;
use doorbell_fallible::OutOfMemory;

impl Distributor<'_> {
    pub(crate) fn save(self) -> Result<DistributorState, OutOfMemory> {
        Ok(DistributorState {
            ctlr: self.control_view(self.wired.control()),
            typer: self.typer().into_bits(),
            iidr: self.config.iidr.into_bits(),
            interrupts: self.wired.save(self.config, Bank::Shared)?,
        })
    }

    /// Validates the saved registers for this distributor, and returns the control register's
    /// stored value. Does not check the interrupts.
    pub(crate) fn restorable(self, saved: &DistributorState) -> Result<u32, Problem> {
        Problem::unless_same("GICD_TYPER", saved.typer.into(), self.typer().into_bits().into())?;
        let iidr = self.config.iidr.into_bits();
        Problem::unless_same("GICD_IIDR", saved.iidr.into(), iidr.into())?;
        let stored = saved.ctlr & self.writable_control();
        Problem::unless(self.control_view(stored) == saved.ctlr, "GICD_CTLR", saved.ctlr)?;
        Ok(stored)
    }
}
