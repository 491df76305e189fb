//! Taking an ITS into use.

use super::collections::Collections;
use super::command_queue::{CommandQueue, RING_BYTES};
use super::control_frame::ControlFrame;
use super::error::ProbeError;
use super::quirks::{self, CorrectedConfig};
use super::routes::EventRoutes;
use super::tables::{self, ItsTable, TableRequest};
use super::{Its, TaskState};
use crate::errata::Erratum;
use crate::gic::{Gic, GicWithLpis};
use crate::lpi::LpiMessages;
use crate::mmio::MmioExt;
use crate::platform::{Coherence, GicPlatform, PhysicalRegion};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use doorbell_fallible::SortedMap;
use doorbell_lock::IrqLock;
use doorbell_lock::TaskLock;
use gic_arch::gits::{self, TableKind};
use msi_types::Cpu;

/// 2047 commands at a time.
const DEFAULT_QUEUE_BYTES: u32 = 0x1_0000;
/// Collection 0xffff is never used.
const MAX_CPUS: u32 = 0xffff;

/// Configuration of an ITS, known before any access to it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsConfig {
    /// Physical base address of its control frame, as firmware states it.
    pub base: u64,
    /// CPU numbers below this can be targets: 1 to 65535.
    pub cpus: u32,
    /// Size of the command queue: a multiple of 4 KiB up to 1 MiB.
    pub queue_bytes: u32,
    /// Coherence of its accesses, as firmware states it. Coherent accesses are negotiated with the
    /// ITS too.
    pub coherence: Coherence,
    /// DeviceIDs need at most so many bits: saves table memory where the ITS has more.
    pub device_id_bits: u8,
    /// The NUMA node that it is near to.
    pub node: Option<u32>,
    /// By which names firmware identifies the machine, for [errata](crate::errata::matching): the
    /// compatible strings of the devicetree's root, or ACPI's OEM table ID.
    pub machine: Vec<String>,
    /// The CPUs that the ITS can target, where it does not reach all
    /// ([`ItsLocalNodeOnly`](crate::errata::Erratum::ItsLocalNodeOnly)).
    pub targets: Option<Vec<Cpu>>,
    /// The window before the ITS that devices write to in place of `GITS_TRANSLATER`, where
    /// firmware states one (`socionext,synquacer-pre-its`): four bytes for each DeviceID.
    pub pre_its: Option<PhysicalRegion>,
    /// The treatment of an ITS that is enabled already.
    pub if_enabled: IfEnabled,
}

/// The treatment by [`Its::new`] of an ITS that is enabled already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum IfEnabled {
    /// It leaves the ITS alone and refuses it: another [`Its`] may drive it.
    #[default]
    Refuse,
    /// It disables the ITS and waits until it is quiescent: firmware or a previous kernel (kexec)
    /// left it enabled.
    TakeOver,
}

impl ItsConfig {
    /// The usual: a queue of 64 KiB, coherent, as many DeviceID bits as the ITS has. One that is
    /// enabled already is refused.
    pub const fn new(base: u64, cpus: u32) -> Self {
        Self {
            base,
            cpus,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            coherence: Coherence::Coherent,
            device_id_bits: 32,
            node: None,
            machine: Vec::new(),
            targets: None,
            pre_its: None,
            if_enabled: IfEnabled::Refuse,
        }
    }

    msi_types::setters! {
        with_base: base: u64,
        with_cpus: cpus: u32,
        with_queue_bytes: queue_bytes: u32,
        with_coherence: coherence: Coherence,
        with_device_id_bits: device_id_bits: u8,
        with_node: node: Option<u32>,
        with_machine: machine: Vec<String>,
        with_targets: targets: Option<Vec<Cpu>>,
        with_pre_its: pre_its: Option<PhysicalRegion>,
        with_if_enabled: if_enabled: IfEnabled,
    }

    fn check(&self) -> Result<(), ProbeError> {
        let bad = |reason| Err(ProbeError::BadConfig { base: self.base, reason });
        if !RING_BYTES.contains(&self.queue_bytes) || !self.queue_bytes.is_multiple_of(0x1000) {
            return bad("the command queue must be a multiple of 4 KiB up to 1 MiB");
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return bad("there must be 1 to 65535 CPUs");
        }
        if !(1..=32).contains(&self.device_id_bits) {
            return bad("DeviceIDs have 1 to 32 bits");
        }
        if self.pre_its.is_some_and(|window| window.bytes < 8 || !window.base.is_multiple_of(4)) {
            return bad("the window before the ITS has no room for DeviceIDs");
        }
        Ok(())
    }
}

/// The memory that an ITS works with.
struct ItsMemory {
    device_table: ItsTable,
    collection_table: Option<ItsTable>,
    queue: CommandQueue,
}

impl<P: GicPlatform> Its<P> {
    /// Takes the ITS at `config.base` into use, with the LPIs of its GIC: provides its tables and
    /// its command queue, and enables it. CPUs become targets by [`cpu_on`](Self::cpu_on). Task;
    /// once for each ITS.
    ///
    /// # Errors
    /// [`ProbeError`]; all memory was freed, and the ITS is disabled but for
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
        let errata = quirks::find(frame.registers.read(gits::IIDR), config).map_err(no_memory)?;
        let needs_window = errata.iter().any(|entry| entry.erratum == Erratum::ItsBehindPreIts);
        if needs_window && config.pre_its.is_none() {
            let reason = "the window before the ITS, which firmware states, is missing";
            return Err(ProbeError::BadConfig { base: config.base, reason });
        }
        let corrected = quirks::apply(&errata, frame.registers.read(gits::TYPER), config);
        let CorrectedConfig { typer, constraints, .. } = corrected;
        if !typer.physical() {
            return Err(ProbeError::NoPhysicalLpis(config.base));
        }
        let routes = EventRoutes::new(lpis.id_bits()).map_err(no_memory)?;
        let collections =
            Collections::new(config.cpus, typer.hcc().into(), config.targets.as_deref())
                .map_err(no_memory)?;
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
        let device_id_bits = u8::try_from(device_table.ids().ilog2()).unwrap_or(u8::MAX);
        let state = TaskState {
            device_table,
            collection_table,
            device_id_bits,
            devices: SortedMap::new(),
            quotas: SortedMap::new(),
            next_cookie: 0,
            deferred_unmaps: VecDeque::new(),
            targets,
            to_clear,
        };
        Ok(Self {
            collections,
            routes,
            constraints,
            doorbell_window: config.pre_its,
            errata,
            state: TaskLock::new(state),
            faults: AtomicU32::new(0),
            last_fault: IrqLock::new(None),
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
        let TaskState { device_table, collection_table, devices, deferred_unmaps, .. } =
            state.get_mut();
        if !devices.is_empty() || !deferred_unmaps.is_empty() || frame.quiesce().is_err() {
            return;
        }
        queue.release(frame);
        device_table.release(frame);
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
