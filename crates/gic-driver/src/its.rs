//! The Interrupt Translation Service (ITS; IHI 0069 §5), which translates the DeviceID and EventID
//! of a device's message to an LPI and a CPU's redistributor.
//!
//! [`Its`] is the mechanism: it manages DeviceIDs, events and collections. [`ItsMsiParent`] adds
//! the policy of a bus, which maps requesters to DeviceIDs.
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
//! SYNC for each affected redistributor. From then on these events cannot become pending at their
//! old redistributors.
//!
//! # After kexec
//! A redistributor that cannot disable LPIs keeps the tables of a previous kernel
//! ([`GicPlatform::adopt_table`]), in which LPIs may be pending. Before an LPI's first owner uses
//! it, the driver clears it at each such redistributor (IHI 0069 §5.3): it posts MAPTI to the first
//! redistributor's collection and CLEAR, then MOVI to each further collection and CLEAR, and
//! finally MOVI to the requested CPU. The LPI stays disabled during this sequence. Each of these
//! redistributors must therefore be a target of the ITS ([`cpu_on`](Its::cpu_on)) when an LPI is
//! first allocated.
//!
//! LPIs that are already in use cannot be cleared at the redistributor of a CPU that is turned on
//! later, because MOVI would merge a pending state there with one elsewhere.
//! [`Gic::cpu_on`](crate::Gic::cpu_on) refuses this CPU with
//! [`LpisInUse`](crate::lpi::AdoptionRefused::LpisInUse). Kernels must turn on all CPUs before
//! devices allocate LPIs, or reboot instead of using kexec.
//!
//! # Cost
//! The commands of one operation are posted together, with one write of `GITS_CWRITER`, and one
//! read of `GITS_CREADR` if the ITS is fast. Mapping a device's first block is one operation,
//! whatever its size: MAPD, a MAPTI for each event, one invalidation and one SYNC.
//! [`release`](Its::release) is also one operation: a DISCARD for each event, MAPD, and one SYNC
//! for each affected redistributor.
//!
//! # An ITS that does not respond
//! A task waits as long as `GITS_CREADR` advances. If it does not advance for the [platform's
//! bound](crate::Platform::wait), the ITS counts as unresponsive: later callers post their
//! commands, poll once, and fail. As soon as `GITS_CREADR` advances, the ITS counts as responsive
//! again. It executes all posted commands in order, so no reset is needed. Operations with
//! `Context: any.` wait for a single such bound, regardless of the length of the queue, and do not
//! declare the ITS unresponsive.
//!
//! # Lock order, outermost first
//! ```text
//! state            task operations of one ITS (TaskLock: interrupts stay on)
//!   Lpis           allocator, configuration bytes
//!     ring         the command queue (IrqLock); also held to change routes and collections
//!       the last fault
//! ```
//! Operations that may run in any context acquire only the ring's lock and the lock of an LPI's
//! configuration. If the redistributors have `GICR_INVLPIR`, masking acquires the ring's lock only
//! when the register cannot be used, for example while a move is in progress.

// First, so that the documentation of `Its` begins with its constructor.
mod probe;

mod attachment;
mod command_queue;
mod config;
mod device_table;
mod devices;
mod error;
mod events;
mod hardware;
mod hotplug;
mod invalidation;
mod mapping;
mod msi_parent;
mod routes;
mod tables;

pub use config::{IfEnabled, ItsConfig};
pub use error::{ItsError, ProbeError};
pub use mapping::EventRequest;
pub use msi_parent::{IdMap, IdRange, ItsMsiParent};

use crate::errata::ErratumEntry;
use crate::gic::GicWithLpis;
use crate::lpi::Lpis;
use crate::platform::{GicPlatform, PhysicalRegion, TimedOut};
use crate::redistributor::Redistributor;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use command_queue::CommandQueue;
use device_table::DeviceTable;
use devices::DeferredUnmap;
use doorbell_lock::TaskLock;
use error::FaultLog;
use gic_arch::gits::{self, Typer};
use gic_arch::its::{CollectionId, Command, RdBase};
use hardware::{Context, ControlFrame};
use invalidation::RegisterInvalidation;
use msi_types::DeviceId;
use routes::{Collections, EventRoutes};
use tables::{ItsTable, TableConstraints};

/// One enabled ITS. Must be dropped by a task. If no device is attached, dropping it disables the
/// ITS and frees its memory. Otherwise the ITS is left enabled and its memory leaks, because
/// devices may still send messages.
///
/// Kernels with an MSI layer use [`ItsMsiParent`], as in the [module's example](self). Others map
/// events themselves:
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
#[derive(Debug)]
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
    deferred_unmaps: VecDeque<DeferredUnmap>,
    /// Buffer in which a batch collects the affected redistributors. Allocated in advance, because
    /// the batch must not allocate with the queue's lock held.
    targets: Vec<RdBase>,
    /// Collections at which the LPIs of the block being mapped must be cleared. Has room for all
    /// collections if LPI tables were adopted.
    to_clear: Vec<CollectionId>,
}

impl<P: GicPlatform> Its<P> {
    /// Quiesces the ITS for a suspend of the system: the ITS writes its caches to memory, and drops
    /// later messages. Devices must have stopped sending messages. Must be called on the last CPU,
    /// while no task is within an operation of this ITS, because this call must not wait for its
    /// lock.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the ITS does not complete its commands or does not become quiescent.
    /// It then continues to work.
    pub fn suspend(&self) -> Result<(), ItsError> {
        self.state.with(self.platform(), |state| {
            self.finish_deferred_unmaps(state)?;
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
    /// the collections that it held internally. The tables' memory must have been kept; the
    /// redistributors must be awake with LPIs enabled. No task may be within an operation of this
    /// ITS.
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
    /// in the [window](ItsConfig::pre_its) in front of the ITS.
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

    /// Returns the errata of this ITS. The driver applies the workarounds that need no cooperation.
    /// With [`ItsLocalNodeOnly`](crate::errata::Erratum::ItsLocalNodeOnly), the caller must state
    /// the [targets](ItsConfig::targets).
    pub fn errata(&self) -> impl Iterator<Item = &'static ErratumEntry> {
        self.errata.iter().copied()
    }

    /// Returns the LPIs from which this ITS allocates.
    pub fn lpis(&self) -> &Lpis<P> {
        self.gic.lpis()
    }

    /// Returns the number of failures of operations that cannot return an error (unmap, detach,
    /// mask), and the last failure.
    pub fn faults(&self) -> (u32, Option<ItsError>) {
        self.faults.read(self.platform())
    }

    /// Returns the error for a redistributor whose registers are still in use.
    fn still_used(&self, late: TimedOut) -> ItsError {
        error::fault(self.frame.base, "INVLPIR", late.0)
    }

    fn quiesce(&self) -> Result<(), ItsError> {
        self.frame
            .quiesce()
            .map_err(|TimedOut(what)| error::fault(self.frame.base, what, "timeout"))
    }

    /// Posts commands of a task and waits for them.
    fn run(&self, commands: &mut dyn Iterator<Item = Command>) -> Result<(), ItsError> {
        self.queue
            .run(&self.frame, Context::Task, commands)
            .map_err(|failed| failed.error.at(self.frame.base))
    }

    /// Returns the number by which commands identify a redistributor.
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

    /// Records a failure that the operation cannot return.
    fn note(&self, error: ItsError) {
        self.faults.note(self.platform(), error);
    }

    fn platform(&self) -> &P {
        &self.frame.platform
    }
}
