//! The Interrupt Translation Service (ITS; IHI 0069 §5), which translates a message's DeviceID and
//! EventID to an LPI and a CPU's redistributor.
//!
//! [`Its`] is the mechanism: it manages DeviceIDs, events and collections. [`ItsMsiParent`] adds
//! a bus's policy: it maps requesters to DeviceIDs.
//!
//! ```
//! use gic_driver::its::IdMap;
//! use gic_driver::{Gic, Its, ItsConfig, ItsMsiParent, GicPlatform};
//! use msi_types::Cpu;
//! use std::sync::Arc;
//!
//! /// Creates the parent of a PCI host bridge, whose requester IDs are also its DeviceIDs.
//! fn its_of_a_bridge<P: GicPlatform>(
//!     gic: Arc<Gic<P>>,
//!     base: u64,
//! ) -> Result<ItsMsiParent<P>, Box<dyn std::error::Error>> {
//!     let cpus = u32::try_from(gic.cpus().count())?;
//!     let its = Arc::new(Its::new(gic, &ItsConfig::new(base, cpus))?);
//!     // `Gic::cpu_on` has enabled the boot CPU's LPIs. The other CPUs follow when they start.
//!     its.cpu_on(Cpu::new(0))?;
//!     Ok(ItsMsiParent::new(its, IdMap::identity()))
//! }
//! ```
//!
//! # After SYNC
//! Every operation that moves, discards or unmaps events returns only after the ITS has executed a
//! SYNC for each affected redistributor. After the SYNC, these events can't become pending at their
//! old redistributors.
//!
//! # After kexec
//! A redistributor that can't disable LPIs keeps a previous kernel's tables
//! ([`GicPlatform::adopt_table`]), where LPIs may be pending. Before an LPI's first owner uses it,
//! the driver clears the LPI at each such redistributor (IHI 0069 §5.3): it posts MAPTI to the
//! first redistributor's collection and CLEAR, then MOVI to each further collection and CLEAR, and
//! finally MOVI to the requested CPU. The LPI stays disabled during this sequence. Each of these
//! redistributors must therefore be a target of the ITS ([`cpu_on`](Its::cpu_on)) when an LPI is
//! first allocated.
//!
//! LPIs already in use can't be cleared at the redistributor of a CPU that is turned on later,
//! because MOVI would merge pending state there with pending state elsewhere.
//! [`Gic::cpu_on`](crate::Gic::cpu_on) refuses this CPU with
//! [`LpisInUse`](crate::lpi::AdoptionRefused::LpisInUse). Kernels must turn on all CPUs before
//! devices allocate LPIs, or reboot rather than kexec.
//!
//! # Cost
//! All commands for an operation are posted together, with a single write to `GITS_CWRITER` and, if
//! the ITS is fast, a single read from `GITS_CREADR`. Mapping a device's first block is one
//! operation, regardless of the size of the block: MAPD, a MAPTI per event, one invalidation and
//! one SYNC. [`release`](Its::release) is also one operation: a DISCARD for each event, MAPD, and
//! one SYNC for each affected redistributor.
//!
//! # An ITS that does not respond
//! A task waits as long as `GITS_CREADR` advances. If `GITS_CREADR` does not advance for longer
//! than the [platform's bound](crate::Platform::wait), the ITS is considered unresponsive: later
//! callers post their commands, poll once, and fail. As soon as `GITS_CREADR` advances again,
//! callers wait and succeed as before. The ITS still executes all posted commands in order, so no
//! reset is needed. Operations with `Context: any.` wait no longer than this bound in total,
//! however long the queue is, and never declare the ITS unresponsive.
//!
//! # Lock order, outermost first
//! ```text
//! state            task operations of one ITS (TaskLock: interrupts stay on)
//!   Lpis           allocator, configuration bytes
//!     ring         the command queue (IrqLock); also held to change routes and collections
//!       the last fault
//! ```
//! Operations that may run in any context take only the ring lock and an LPI's configuration lock.
//! With `GICR_INVLPIR`, masking doesn't even need the ring lock unless the register can't be used,
//! e.g. while a move is in progress.

mod attachment;
mod command_queue;
mod config;
mod devices;
mod direct;
mod error;
mod hotplug;
mod mapping;
mod msi_parent;
mod routes;
mod tables;
mod vpe;
mod waiting;

pub use config::{IfEnabled, ItsConfig};
pub use direct::{DirectEvent, VirtualLpi};
pub use error::{ItsError, ProbeError};
pub use mapping::EventRequest;
pub use msi_parent::{IdMap, IdRange, ItsMsiParent};
pub use vpe::VpeSet;

use crate::errata::{Erratum, ErratumEntry};
use crate::gic::{Gic, GicWithLpis};
use crate::lpi::{LpiMessages, Lpis};
use crate::mmio::MmioExt;
use crate::platform::{GicPlatform, PhysicalRegion, TimedOut};
use crate::redistributor::Redistributor;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use command_queue::CommandQueue;
use config::{CorrectedConfig, ItsMemory, VpeTable};
use core::fmt;
use devices::{DeferredUnmap, DeviceTable};
use doorbell_fallible::lock::TaskLock;
use error::FaultLog;
use gic_arch::gits::{self, Typer};
use gic_arch::its::{CollectionId, Command, RawCommand, RdBase};
use msi_types::{Attachment, DeviceId, HwIrqBlock};
use routes::{Collections, EventRoutes, RegisterInvalidation, cpu_of};
use tables::{Context, ControlFrame, ItsTable, TableConstraints};

/// An enabled ITS. The value must be dropped by a task. If no device is attached, dropping the
/// value disables the ITS and frees its memory. Otherwise, devices may still send messages, so the
/// ITS stays enabled and its memory is leaked.
///
/// Kernels with an MSI layer use [`ItsMsiParent`], as in the [module's example](self). Kernels
/// without an MSI layer can map events themselves:
///
/// ```
/// use core::num::NonZeroU16;
/// use gic_arch::{IntId, Lpi};
/// use gic_driver::its::EventRequest;
/// use gic_driver::{GicPlatform, Its, ItsError};
/// use msi_types::{Cpu, DeviceId, MsiMessage};
///
/// /// Maps the first event of a device to an LPI. Returns the LPI, and the message that makes it
/// /// pending.
/// fn first_event<P: GicPlatform>(
///     its: &Its<P>,
///     device: DeviceId,
///     cpu: Cpu,
/// ) -> Result<Option<(Lpi, MsiMessage)>, ItsError> {
///     let device = its.attach(device, 1)?;
///     let events = its.map_events(&device, EventRequest::new(NonZeroU16::MIN, cpu))?;
///     let Ok(lpi) = Lpi::try_from(IntId::from(events.first())) else { return Ok(None) };
///     Ok(its.message(lpi).map(|message| (lpi, message)))
/// }
/// ```
#[doc(alias = "its_node")]
pub struct Its<P: GicPlatform> {
    frame: ControlFrame<P>,
    typer: Typer,
    gic: GicWithLpis<P>,
    queue: CommandQueue,
    collections: Collections,
    routes: EventRoutes,
    invalidation: RegisterInvalidation<P>,
    constraints: TableConstraints,
    doorbell_window: Option<PhysicalRegion>,
    errata: Vec<&'static ErratumEntry>,
    state: TaskLock<TaskState>,
    faults: FaultLog,
}

/// State that only tasks access.
#[derive(Debug)]
struct TaskState {
    devices: DeviceTable,
    collection_table: Option<ItsTable>,
    vpe_table: Option<VpeTable>,
    deferred_unmaps: VecDeque<DeferredUnmap>,
    /// Scratch buffer for the redistributors affected by a batch of commands. The buffer is
    /// allocated in advance, because memory must not be allocated with the queue lock held.
    targets: Vec<RdBase>,
    /// Collections at which the LPIs being mapped must be cleared. The vector has room for all
    /// collections if LPI tables were adopted.
    to_clear: Vec<CollectionId>,
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
            config::provision(&frame, &corrected, config)?;
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

    /// Attaches a device, for up to `max` events in addition to those of earlier attachments. All
    /// requesters with this DeviceID share a translation table, but each caller has its own quota.
    ///
    /// Context: task; may sleep.
    ///
    /// If the table is too small for another quota, it is replaced, but only while no event is in
    /// use: messages that arrive during a replacement would be lost.
    ///
    /// # Errors
    /// [`ItsError::DeviceIdOutOfRange`] or [`ItsError::TooManyEvents`] if the request exceeds a
    /// limit of the ITS; [`ItsError::AttachedForFewer`] if the existing table is too small and in
    /// use; [`ItsError::NoMemory`] or [`ItsError::Misplaced`] if the platform has no suitable
    /// memory; [`ItsError::Fault`] if the ITS does not respond.
    pub fn attach(&self, device: DeviceId, max: u32) -> Result<Attachment, ItsError> {
        self.attach_shared(device, max, max)
    }

    /// Attaches a device like [`attach`](Self::attach), with a table for at least `room` events,
    /// because more requesters with the same DeviceID are expected.
    pub(crate) fn attach_shared(
        &self,
        device: DeviceId,
        max: u32,
        room: u32,
    ) -> Result<Attachment, ItsError> {
        self.state.with(self.platform(), |state| {
            state.devices.check_id(device)?;
            state.finish_deferred_unmaps(self)?;
            state.devices.reserve(&self.frame, device)?;
            state.attach_device(self, device, max, room)?;
            Ok(state.devices.add_quota(device, max))
        })
    }

    /// Removes a quota. Removing a device's last quota unmaps the device and frees its table. If
    /// events are still mapped, the device stays mapped, too.
    ///
    /// Context: task; may sleep.
    pub fn detach(&self, attachment: Attachment) {
        self.release(attachment, &mut core::iter::empty());
    }

    /// Removes a quota with all its events. Equivalent to [`unmap_events`](Self::unmap_events) for
    /// each block and [`detach`](Self::detach), but in a single batch of commands.
    ///
    /// Context: task; may sleep.
    #[expect(clippy::needless_pass_by_value, reason = "callers give up the attachment")]
    pub fn release(&self, attachment: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        // Run the caller's iterator before taking the lock, because the iterator may take other
        // locks.
        let mut known = Vec::new();
        for block in blocks {
            if known.try_reserve(1).is_err() {
                self.unmap_events(&attachment, block);
            } else {
                let find = |state: &mut TaskState| state.block_of(self, &attachment, &block);
                known.extend(self.state.with(self.platform(), find));
            }
        }
        self.state.with(self.platform(), |state| state.detach(self, &attachment, known));
    }

    /// Maps consecutive events to consecutive LPIs, as one batch of commands. The block's vectors
    /// are the LPIs' INTIDs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is off, [`ItsError::NoEvents`], [`ItsError::NoLpis`],
    /// [`ItsError::NoMemory`], or [`ItsError::Fault`] if a command fails. On error, no event is
    /// mapped.
    pub fn map_events(
        &self,
        attachment: &Attachment,
        request: EventRequest,
    ) -> Result<HwIrqBlock, ItsError> {
        self.state.with(self.platform(), |state| state.map_events(self, attachment, request))
    }

    /// Discards events and frees their LPIs. On return, none of these LPIs can become pending any
    /// more.
    ///
    /// Context: task; may sleep.
    #[expect(clippy::needless_pass_by_value, reason = "callers give up the block")]
    pub fn unmap_events(&self, attachment: &Attachment, events: HwIrqBlock) {
        self.state.with(self.platform(), |state| state.unmap_events(self, attachment, &events));
    }

    /// Quiesces the ITS for a system suspend: the ITS writes its caches to memory and drops any
    /// later messages. Devices must have stopped sending messages. Must be called on the last CPU,
    /// while no task is using this ITS, because this call must not wait for the task's lock.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the ITS does not complete its commands or does not become quiescent.
    /// On error, the ITS keeps working.
    pub fn suspend(&self) -> Result<(), ItsError> {
        self.state.with(self.platform(), |state| {
            state.finish_deferred_unmaps(self)?;
            let closed = self.invalidation.close_all(self.collections.mapped());
            closed.map_err(|late| self.still_used(late))?;
            let stopped = self.queue.stop(&self.frame).map_err(|error| error.at(self.frame.base));
            let quiet = stopped.and_then(|()| {
                self.quiesce().inspect_err(|_| {
                    self.frame.enable();
                    self.queue.start(&self.frame);
                })
            });
            quiet.inspect_err(|_| self.invalidation.open_all(self.collections.mapped()))
        })
    }

    /// Resumes the ITS after [`suspend`](Self::suspend), whether or not it lost its registers and
    /// internal collections. Table memory must have been preserved, and the redistributors must be
    /// awake with LPIs enabled. No task may be using this ITS.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the ITS does not become quiescent or does not complete its commands.
    pub fn resume(&self) -> Result<(), ItsError> {
        self.state.with(self.platform(), |state| {
            self.quiesce()?;
            self.queue.restore(&self.frame);
            state.devices.table.restore(&self.frame);
            if let Some(table) = &state.collection_table {
                table.restore(&self.frame);
            }
            if let Some(table) = &state.vpe_table {
                table.restore(&self.frame);
            }
            self.queue.start(&self.frame);
            self.frame.enable();
            self.run(&mut self.collections.recover())?;
            self.invalidation.open_all(self.collections.mapped());
            Ok(())
        })
    }

    /// Returns the physical base address.
    pub fn base(&self) -> u64 {
        self.frame.base
    }

    /// Returns the physical address of the doorbell, `GITS_TRANSLATER`, or of the lowest doorbell
    /// in the [window](ItsConfig::with_pre_its) in front of the ITS.
    pub fn doorbell(&self) -> u64 {
        self.doorbell_of(DeviceId::new(0))
    }

    fn doorbell_of(&self, device: DeviceId) -> u64 {
        match self.doorbell_window {
            Some(window) => config::pre_its_doorbell(window, device),
            None => self.frame.base + u64::from(gits::TRANSLATER.offset()),
        }
    }

    /// Returns `GITS_TYPER`, which describes the hardware's features.
    pub fn typer(&self) -> Typer {
        self.typer
    }

    /// Returns this ITS's errata. The driver applies all workarounds that need no help from the
    /// caller. With [`ItsLocalNodeOnly`](crate::errata::Erratum::ItsLocalNodeOnly), the caller must
    /// state the [targets](ItsConfig::with_targets).
    pub fn errata(&self) -> impl Iterator<Item = &'static ErratumEntry> {
        self.errata.iter().copied()
    }

    /// Returns the LPIs that this ITS allocates from.
    pub fn lpis(&self) -> &Lpis<P> {
        self.gic.lpis()
    }

    /// Returns the number of failures in operations that can't return an error (unmap, detach,
    /// mask), and the last of these failures.
    pub fn faults(&self) -> (u32, Option<ItsError>) {
        self.faults.read(self.platform())
    }

    /// Returns the error for a timeout while a redistributor's registers were still in use.
    fn still_used(&self, late: TimedOut) -> ItsError {
        error::fault(self.frame.base, "INVLPIR", late.0)
    }

    fn quiesce(&self) -> Result<(), ItsError> {
        self.frame
            .quiesce()
            .map_err(|TimedOut(what)| error::fault(self.frame.base, what, "timeout"))
    }

    /// Posts commands for a task and waits for them.
    fn run(&self, commands: &mut dyn Iterator<Item = Command>) -> Result<(), ItsError> {
        self.queue
            .run(&self.frame, Context::Task, commands)
            .map_err(|failed| failed.error.at(self.frame.base))
    }

    /// Posts commands that concern vPEs as one batch, and waits for them in any context.
    fn run_virtual<const N: usize>(&self, commands: [RawCommand; N]) -> Result<(), ItsError> {
        let result = self.queue.run_raw(&self.frame, Context::Any, &mut commands.into_iter());
        result.map_err(|failed| failed.error.at(self.frame.base))
    }

    /// Returns the field by which ITS commands refer to a redistributor.
    fn rd_base(&self, redistributor: &Redistributor<P::Mmio>) -> RdBase {
        self.rd_base_of(redistributor.address(), redistributor.processor_number())
    }

    fn rd_base_of(&self, address: u64, processor_number: u16) -> RdBase {
        if self.typer.pta() {
            RdBase::from_address(address)
        } else {
            RdBase::from_processor_number(processor_number)
        }
    }

    /// Records a failure of an operation that can't return an error.
    fn note(&self, error: ItsError) {
        self.faults.note(self.platform(), error);
    }

    fn platform(&self) -> &P {
        &self.frame.platform
    }
}

impl<P: GicPlatform> Drop for Its<P> {
    /// Disables an ITS without devices and frees its memory. If the ITS does not become quiescent,
    /// the memory is leaked, because the ITS may still access it.
    fn drop(&mut self) {
        let Self { frame, queue, state, .. } = self;
        let TaskState { collection_table, vpe_table, devices, deferred_unmaps, .. } =
            state.get_mut();
        if !devices.attached.is_empty() || !deferred_unmaps.is_empty() || frame.quiesce().is_err() {
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

/// Maximum number of events that are listed.
const LISTED: usize = 8;

/// Formats a summary. Reads `GITS_CTLR`, and takes the command queue's lock.
impl<P: GicPlatform> fmt::Debug for Its<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enabled = self.frame.registers.read(gits::CTLR).enabled();
        let (executed, posted) = self.queue.progress(&self.frame);
        let (on, cpus) = (self.collections.mapped().count(), self.collections.count());
        let (free, lpis) = (self.lpis().available(), self.lpis().count());
        let (faults, last_fault) = self.faults();
        f.debug_struct("Its")
            .field("base", &format_args!("{:#x}", self.base()))
            .field("doorbell", &format_args!("{:#x}", self.doorbell()))
            .field("enabled", &enabled)
            .field("commands", &format_args!("{executed} of {posted} executed"))
            .field("collections", &format_args!("{on} of {cpus} mapped"))
            .field("lpis", &format_args!("{free} of {lpis} free"))
            .field("events", &self.routes)
            .field("faults", &faults)
            .field("last_fault", &last_fault)
            .finish_non_exhaustive()
    }
}

/// Lists the first events, one per line.
impl fmt::Debug for EventRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (lpi, route) in self.mapped().take(LISTED) {
            let (device, event, cpu) = (route.device, route.event, cpu_of(route.collection));
            list.entry(&format_args!("DeviceID {device}, EventID {event}: {lpi} at CPU {cpu}"));
        }
        match self.mapped().count().saturating_sub(LISTED) {
            0 => list.finish(),
            more => list.entry(&format_args!("and {more} more")).finish(),
        }
    }
}
