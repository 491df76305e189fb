//! Memory of an ITS, with the vPE table of one that implements GICv4.0.

use super::command_queue::CommandQueue;
use super::config::{CorrectedConfig, ItsConfig};
use super::error::{ItsError, ProbeError, fault};
use super::tables::{ControlFrame, ItsTable, TableRequest};
use crate::platform::GicPlatform;
use gic_arch::gits::TableKind;
use gic_arch::its::VpeId;

/// An ITS's memory.
pub(super) struct ItsMemory {
    pub(super) device_table: ItsTable,
    pub(super) collection_table: Option<ItsTable>,
    pub(super) vpe_table: Option<VpeTable>,
    pub(super) queue: CommandQueue,
}

/// Allocates an ITS's memory and programs its registers. On error, all memory has been freed.
pub(super) fn provision<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
    config: &ItsConfig,
) -> Result<ItsMemory, ProbeError> {
    let mut device_table = device_table(frame, corrected)?;
    let (mut collections, mut vpes) = (None, None);
    let mut provision_rest = || {
        collections = collection_table(frame, corrected, config.cpus)?;
        vpes = VpeTable::provision(frame, corrected, config.vpes)?;
        let CorrectedConfig { coherence, constraints, .. } = *corrected;
        CommandQueue::provision(frame, config.queue_bytes, coherence, constraints)
    };
    match provision_rest() {
        Ok(queue) => {
            let (collection_table, vpe_table) = (collections, vpes);
            Ok(ItsMemory { device_table, collection_table, vpe_table, queue })
        }
        Err(error) => {
            device_table.release(frame);
            if let Some(mut table) = collections {
                table.release(frame);
            }
            if let Some(mut table) = vpes {
                table.release(frame);
            }
            Err(error)
        }
    }
}

fn device_table<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
) -> Result<ItsTable, ProbeError> {
    let request = TableRequest {
        kind: TableKind::Devices,
        name: "device table",
        ids: 1 << corrected.device_id_bits,
        coherence: corrected.coherence,
        constraints: corrected.constraints,
        memory_type: corrected.memory_type,
    };
    let missing = ProbeError::TableRefused {
        base: frame.base,
        table: "device table",
        reason: "no GITS_BASER<n> has its type",
    };
    ItsTable::provision(frame, request)?.ok_or(missing)
}

/// Allocates a collection table, if the ITS can't hold enough collections itself.
fn collection_table<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
    cpus: u32,
) -> Result<Option<ItsTable>, ProbeError> {
    const NAME: &str = "collection table";
    let CorrectedConfig { typer, coherence, constraints, memory_type, .. } = *corrected;
    let too_few = |limit| ProbeError::TooFewCollections { base: frame.base, cpus, limit };
    let named = 1_u64 << typer.collection_id_bits();
    if u64::from(cpus) > named {
        return Err(too_few(named));
    }
    if cpus <= typer.hcc().into() {
        return Ok(None);
    }
    let request = TableRequest {
        kind: TableKind::Collections,
        name: NAME,
        ids: cpus.into(),
        coherence,
        constraints,
        memory_type,
    };
    let mut table = ItsTable::provision(frame, request)?.ok_or(too_few(typer.hcc().into()))?;
    // `GITS_TYPER.CCT` states whether collections below HCC use the table. In both cases, the table
    // must have room for all collections.
    if table.ids() < cpus.into() {
        let limit = table.ids();
        table.release(frame);
        return Err(too_few(limit));
    }
    match (0..cpus).try_for_each(|cpu| table.ensure(frame, cpu)) {
        Ok(()) => Ok(Some(table)),
        Err(error) => {
            table.release(frame);
            Err(ProbeError::no_table(frame.base, NAME, error))
        }
    }
}

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
