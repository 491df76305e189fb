//! Taking an ITS into use.

use super::command_queue::CommandQueue;
use super::config::{CorrectedConfig, IfEnabled, ItsConfig};
use super::device_table::DeviceTable;
use super::error::{FaultLog, ProbeError};
use super::hardware::ControlFrame;
use super::invalidation::RegisterInvalidation;
use super::routes::{Collections, EventRoutes};
use super::tables::{ItsTable, TableRequest};
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

/// The memory that an ITS works with.
struct ItsMemory {
    device_table: ItsTable,
    collection_table: Option<ItsTable>,
    queue: CommandQueue,
}

impl<P: GicPlatform> Its<P> {
    /// Disables the ITS at `base`, if it is enabled, and waits until it is quiescent. Until then it
    /// may write to tables of firmware or of a previous kernel. A kernel that
    /// [takes over](IfEnabled::TakeOver) ITSes must therefore quiesce all of them before it
    /// allocates tables for the first one, or for LPIs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ProbeError::Unmappable`], [`ProbeError::NotAnIts`], [`ProbeError::NotQuiescent`].
    pub fn quiesce_at(platform: Arc<P>, base: u64) -> Result<(), ProbeError> {
        let quiet = ControlFrame::map(platform, base)?.quiesce();
        quiet.map_err(|wait| ProbeError::NotQuiescent { base, wait })
    }

    /// Initialises the ITS at `config.base` with the LPIs of its GIC: allocates its tables and its
    /// command queue, and enables it. CPUs become targets by [`cpu_on`](Self::cpu_on). Must be
    /// called once for each ITS.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ProbeError`]. All memory was freed, and the ITS is disabled, except for
    /// [`ProbeError::AlreadyEnabled`].
    pub fn new(gic: Arc<Gic<P>>, config: &ItsConfig) -> Result<Self, ProbeError> {
        config.check()?;
        let no_lpis = |reason| ProbeError::Lpis { base: config.base, reason };
        let gic = GicWithLpis::new(gic).map_err(no_lpis)?;
        let lpis = gic.lpis();
        // It is there even if it cannot be used.
        lpis.claim(LpiMessages::Translated).map_err(no_lpis)?;
        let frame = ControlFrame::map(gic.platform().clone(), config.base)?;
        if config.if_enabled == IfEnabled::Refuse && frame.registers.read(gits::CTLR).enabled() {
            return Err(ProbeError::AlreadyEnabled(config.base));
        }
        let no_memory =
            |_| ProbeError::NoMemory { base: config.base, table: "driver's own records" };
        let errata =
            config::find_errata(frame.registers.read(gits::IIDR), config).map_err(no_memory)?;
        let needs_window = errata.iter().any(|entry| entry.erratum == Erratum::ItsBehindPreIts);
        if needs_window && config.pre_its.is_none() {
            let reason = "the window before the ITS, which firmware states, is missing";
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
        let ItsMemory { device_table, collection_table, queue } =
            provision(&frame, &corrected, config)?;
        queue.start(&frame);
        frame.enable();
        let state = TaskState {
            devices: DeviceTable::new(device_table),
            collection_table,
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
}

impl<P: GicPlatform> Drop for Its<P> {
    /// Disables an ITS without devices and frees its memory. Where it does not come to rest, it
    /// keeps the memory, as it may still access it.
    fn drop(&mut self) {
        let Self { frame, queue, state, .. } = self;
        let TaskState { collection_table, devices, deferred_unmaps, .. } = state.get_mut();
        if !devices.is_empty() || !deferred_unmaps.is_empty() || frame.quiesce().is_err() {
            return;
        }
        queue.release(frame);
        devices.table.release(frame);
        if let Some(table) = collection_table {
            table.release(frame);
        }
    }
}

/// All of it, or nothing.
fn provision<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
    config: &ItsConfig,
) -> Result<ItsMemory, ProbeError> {
    let mut device_table = device_table(frame, corrected)?;
    let collection_table = match collection_table(frame, corrected, config.cpus) {
        Ok(table) => table,
        Err(error) => {
            device_table.release(frame);
            return Err(error);
        }
    };
    match CommandQueue::provision(
        frame,
        config.queue_bytes,
        corrected.coherence,
        corrected.constraints,
    ) {
        Ok(queue) => Ok(ItsMemory { device_table, collection_table, queue }),
        Err(error) => {
            device_table.release(frame);
            if let Some(mut table) = collection_table {
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
        reason: "the ITS has no register for one",
    };
    ItsTable::provision(frame, request)?.ok_or(missing)
}

/// A table for collections, where those in the ITS itself do not suffice.
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
    // GITS_TYPER.CCT tells if collections below HCC use the table; it has room for all of them.
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
