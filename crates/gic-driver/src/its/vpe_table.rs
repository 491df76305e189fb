//! The vPE table of an ITS that implements GICv4.0.

use super::config::CorrectedConfig;
use super::error::{ItsError, ProbeError, fault};
use super::hardware::ControlFrame;
use super::tables::{ItsTable, TableRequest};
use crate::platform::GicPlatform;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::gits::TableKind;
use gic_arch::its::VpeId;

/// The table in which the ITS keeps its vPEs, and the numbers in use.
#[derive(Debug)]
pub(super) struct VpeTable {
    table: ItsTable,
    used: Vec<bool>,
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
        let no_memory = |_| ProbeError::NoMemory { base: frame.base, table: NAME };
        let used = try_collect(core::iter::repeat_n(false, vpes.into())).map_err(no_memory)?;
        let (kind, ids) = (TableKind::VirtualPes, vpes.into());
        let request = TableRequest { kind, name: NAME, ids, coherence, constraints, memory_type };
        Ok(ItsTable::provision(frame, request)?.map(|table| Self { table, used }))
    }

    pub(super) fn release<P: GicPlatform>(&mut self, frame: &ControlFrame<P>) {
        self.table.release(frame);
    }

    pub(super) fn restore<P: GicPlatform>(&self, frame: &ControlFrame<P>) {
        self.table.restore(frame);
    }

    pub(super) fn allocate<P: GicPlatform>(
        &mut self,
        frame: &ControlFrame<P>,
    ) -> Result<VpeId, ItsError> {
        let free = (0..)
            .zip(&self.used)
            .find(|(number, used)| !**used && u64::from(*number) < self.table.ids());
        let (number, _) = free.ok_or(refused(frame.base, "the vPE table is full"))?;
        let ensured = self.table.ensure(frame, u32::from(number));
        ensured.map_err(|error| ItsError::no_table("a second-level vPE table", error))?;
        self.set(number, true);
        Ok(VpeId::new(number))
    }

    /// Returns the number of vPEs for which the table is meant.
    pub(super) fn capacity(&self) -> u32 {
        self.used.len().try_into().unwrap_or(u32::MAX)
    }

    pub(super) fn set(&mut self, number: u16, used: bool) {
        if let Some(place) = self.used.get_mut(usize::from(number)) {
            *place = used;
        }
    }
}

pub(super) const fn refused(base: u64, reason: &'static str) -> ItsError {
    fault(base, "VMAPP", reason)
}
