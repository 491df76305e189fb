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

// Keep this module first, so that rustdoc lists `Its`'s constructor before its other methods.
mod probe;

mod attachment;
mod command_queue;
mod config;
mod debug;
mod device_table;
mod devices;
mod direct;
mod doorbell;
mod error;
mod events;
mod explain;
mod hardware;
mod hotplug;
mod invalidation;
mod mapping;
mod msi_parent;
mod routes;
mod tables;
mod vpe;
mod vpe_table;
mod waiting;

pub use config::{IfEnabled, ItsConfig};
pub use direct::{DirectEvent, VirtualLpi};
pub use error::{ItsError, ProbeError};
pub use mapping::EventRequest;
pub use msi_parent::{IdMap, IdRange, ItsMsiParent};
pub use vpe::VpeSet;

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
use vpe_table::VpeTable;

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
