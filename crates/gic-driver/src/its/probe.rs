//! Memory of an ITS.

use super::command_queue::CommandQueue;
use super::config::{CorrectedConfig, ItsConfig};
use super::error::ProbeError;
use super::hardware::ControlFrame;
use super::tables::{ItsTable, TableRequest};
use super::vpe_table::VpeTable;
use crate::platform::GicPlatform;
use gic_arch::gits::TableKind;

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
