//! The vPE table of an ITS that implements GICv4.0.

use super::config::CorrectedConfig;
use super::error::{ItsError, ProbeError, fault};
use super::hardware::ControlFrame;
use super::tables::{ItsTable, TableRequest};
use crate::platform::GicPlatform;
use gic_arch::gits::TableKind;
use gic_arch::its::VpeId;

/// The table in which the ITS keeps its vPEs.
#[derive(Debug)]
pub(super) struct VpeTable {
    table: ItsTable,
    vpes: u16,
}

impl VpeTable {
    /// Provides the table of an ITS that implements GICv4.0, for up to `vpes` vPEs. The ITS must be
    /// disabled. On error, all memory has been freed.
    pub(super) fn provision<P: GicPlatform>(
        frame: &ControlFrame<P>,
        corrected: &CorrectedConfig,
        vpes: u16,
    ) -> Result<Option<Self>, ProbeError> {
        const NAME: &str = "vPE table";
        let CorrectedConfig { typer, coherence, constraints, memory_type, .. } = *corrected;
        if vpes == 0 || !typer.virtual_lpis() || typer.vmapp() {
            return Ok(None);
        }
        let (kind, ids) = (TableKind::VirtualPes, vpes.into());
        let request = TableRequest { kind, name: NAME, ids, coherence, constraints, memory_type };
        Ok(ItsTable::provision(frame, request)?.map(|table| Self { table, vpes }))
    }

    pub(super) fn release<P: GicPlatform>(&mut self, frame: &ControlFrame<P>) {
        self.table.release(frame);
    }

    pub(super) fn restore<P: GicPlatform>(&self, frame: &ControlFrame<P>) {
        self.table.restore(frame);
    }

    /// Makes room for the vPE with this number.
    pub(super) fn ensure<P: GicPlatform>(
        &mut self,
        frame: &ControlFrame<P>,
        vpe: VpeId,
    ) -> Result<(), ItsError> {
        let number = vpe.get();
        if number >= self.vpes || u64::from(number) >= self.table.ids() {
            return Err(refused(frame.base, "the vPE table is full"));
        }
        let ensured = self.table.ensure(frame, u32::from(number));
        ensured.map_err(|error| ItsError::no_table("a second-level vPE table", error))
    }

    /// Returns the number of vPEs for which the table is meant.
    pub(super) const fn capacity(&self) -> u16 {
        self.vpes
    }
}

pub(super) const fn refused(base: u64, reason: &'static str) -> ItsError {
    fault(base, "VMAPP", reason)
}
