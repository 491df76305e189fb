//! ITS initialization.

use super::command_queue::CommandQueue;
use super::config::{CorrectedConfig, IfEnabled, ItsConfig};
use super::device_table::DeviceTable;
use super::error::{FaultLog, ProbeError};
use super::hardware::ControlFrame;
use super::invalidation::RegisterInvalidation;
use super::routes::{Collections, EventRoutes};
use super::tables::{ItsTable, TableRequest};
use super::vpe_table::VpeTable;
use super::{Its, TaskState, config, tables};
use crate::errata::Erratum;
use crate::gic::{Gic, GicWithLpis};
use crate::lpi::LpiMessages;
use crate::mmio::MmioExt;
use crate::platform::GicPlatform;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_lock::TaskLock;
use gic_arch::gits;
use gic_arch::gits::TableKind;

/// An ITS's memory.
struct ItsMemory {
    device_table: ItsTable,
    collection_table: Option<ItsTable>,
    vpe_table: Option<VpeTable>,
    queue: CommandQueue,
}

impl<P: GicPlatform> Its<P> {
    /// Initializes the ITS at `config.base` with its GIC's LPIs: allocates its tables and command
    /// queue, and enables it. A CPU becomes a target of the ITS when [`cpu_on`](Self::cpu_on) is
    /// called for it. Must be called once for each ITS.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`ProbeError`]. On error, all memory has been freed, and the ITS is either unchanged or
    /// disabled.
    pub fn new(gic: Arc<Gic<P>>, config: &ItsConfig) -> Result<Self, ProbeError> {
        config.check()?;
        let no_lpis = |reason| ProbeError::Lpis { base: config.base, reason };
        let gic = GicWithLpis::new(gic).map_err(no_lpis)?;
        let lpis = gic.lpis();
        // Claim the LPIs even if the ITS turns out to be unusable, because direct LPIs must not be
        // used on a GIC that has an ITS.
        lpis.claim(LpiMessages::Translated).map_err(no_lpis)?;
        let frame = ControlFrame::map(gic.platform().clone(), config.base)?;
        if config.if_enabled == IfEnabled::Refuse && frame.registers.read(gits::CTLR).enabled() {
            return Err(ProbeError::AlreadyEnabled(config.base));
        }
        let no_memory = |_| ProbeError::NoMemory { base: config.base, table: "driver's records" };
        let errata =
            config::find_errata(frame.registers.read(gits::IIDR), config).map_err(no_memory)?;
        let needs_window = errata.iter().any(|entry| entry.erratum == Erratum::ItsBehindPreIts);
        if needs_window && config.pre_its.is_none() {
            let reason = "the ITS needs the window that firmware states in front of it (pre_its)";
            return Err(ProbeError::BadConfig { base: config.base, reason });
        }
        let corrected = config::apply_errata(&errata, frame.registers.read(gits::TYPER), config);
        let CorrectedConfig { typer, constraints, .. } = corrected;
        if !typer.physical() {
            return Err(ProbeError::NoPhysicalLpis(config.base));
        }
        let routes = EventRoutes::new(lpis.id_bits()).map_err(no_memory)?;
        let collections =
            Collections::new(config.cpus, typer.hcc().into(), config.targets.as_deref())
                .map_err(no_memory)?;
        let invalidation =
            RegisterInvalidation::new(gic.clone(), collections.count()).map_err(no_memory)?;
        let mut targets = Vec::new();
        targets.try_reserve_exact(collections.count()).map_err(no_memory)?;
        let mut to_clear = Vec::new();
        if lpis.were_adopted() {
            to_clear.try_reserve_exact(collections.count()).map_err(no_memory)?;
        }
        frame.quiesce().map_err(|wait| ProbeError::NotQuiescent { base: config.base, wait })?;
        tables::clear_all(&frame.registers);
        let ItsMemory { device_table, collection_table, vpe_table, queue } =
            provision(&frame, &corrected, config)?;
        queue.start(&frame);
        frame.enable();
        let state = TaskState {
            devices: DeviceTable::new(device_table),
            collection_table,
            vpe_table,
            deferred_unmaps: VecDeque::new(),
            targets,
            to_clear,
        };
        Ok(Self {
            collections,
            routes,
            invalidation,
            constraints,
            doorbell_window: config.pre_its,
            errata,
            state: TaskLock::new(state),
            faults: FaultLog::default(),
            frame,
            typer,
            gic,
            queue,
        })
    }

    /// Disables the ITS at `base`, if it is enabled, and waits until it is quiescent. Until it is
    /// quiescent, the ITS may write to tables owned by firmware or a previous kernel. A kernel that
    /// [takes over](IfEnabled::TakeOver) ITSes must quiesce all of them before it allocates any
    /// table for an ITS or for LPIs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ProbeError::Unmappable`] or [`ProbeError::NotAnIts`] if no ITS is found at `base`;
    /// [`ProbeError::NotQuiescent`] if it does not become quiescent in time.
    pub fn quiesce_at(platform: Arc<P>, base: u64) -> Result<(), ProbeError> {
        let quiet = ControlFrame::map(platform, base)?.quiesce();
        quiet.map_err(|wait| ProbeError::NotQuiescent { base, wait })
    }
}

impl<P: GicPlatform> Drop for Its<P> {
    /// Disables an ITS without devices and frees its memory. If the ITS does not become quiescent,
    /// the memory is leaked, because the ITS may still access it.
    fn drop(&mut self) {
        let Self { frame, queue, state, .. } = self;
        let TaskState { collection_table, vpe_table, devices, deferred_unmaps, .. } =
            state.get_mut();
        if !devices.is_empty() || !deferred_unmaps.is_empty() || frame.quiesce().is_err() {
            return;
        }
        queue.release(frame);
        devices.table.release(frame);
        if let Some(table) = collection_table {
            table.release(frame);
        }
        if let Some(table) = vpe_table {
            table.release(frame);
        }
    }
}

/// Allocates an ITS's memory and programs its registers. On error, all memory has been freed.
fn provision<P: GicPlatform>(
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
