//! The Interrupt Translation Service (IHI 0069 §5): it turns a device's message, (DeviceID,
//! EventID), into an LPI at a CPU's redistributor.
//!
//! [`Its`] is the mechanism: it knows DeviceIDs, events and collections. [`ItsMsiParent`] is the
//! policy of one bus above it: which requester has which DeviceID.
//!
//! ```
//! use gic_driver::its::IdMap;
//! use gic_driver::{Gic, Its, ItsConfig, ItsMsiParent, GicPlatform};
//! use msi_types::Cpu;
//! use std::sync::Arc;
//!
//! /// The parent of a PCI host bridge's functions, whose requester IDs are their DeviceIDs.
//! fn its_of_a_bridge<P: GicPlatform>(
//!     gic: Arc<Gic<P>>,
//!     base: u64,
//! ) -> Result<ItsMsiParent<P>, Box<dyn std::error::Error>> {
//!     let cpus = u32::try_from(gic.cpus().count())?;
//!     let its = Arc::new(Its::new(gic, &ItsConfig::new(base, cpus))?);
//!     // `Gic::cpu_on` enabled the boot CPU's LPIs; the others follow as they come up.
//!     its.cpu_on(Cpu::new(0))?;
//!     Ok(ItsMsiParent::new(its, IdMap::identity()))
//! }
//! ```
//!
//! # After SYNC
//! Every operation that ends or moves something returns after the ITS executed a SYNC for each
//! redistributor concerned. What was discarded, moved or unmapped before it never again becomes
//! pending at the old place.
//!
//! # After kexec
//! A redistributor that cannot disable LPIs keeps the tables of a previous kernel
//! ([`GicPlatform::adopt_table`]), and what was pending in them. Before an LPI's first owner, the
//! ITS clears it at each such redistributor (IHI 0069 §5.3). It does MAPTI to the first one's
//! collection and CLEAR, then MOVI to each further one's and CLEAR. Last comes MOVI to the CPU
//! asked for. The LPI stays disabled meanwhile. So each of these redistributors must be a target of
//! the ITS ([`cpu_on`](Its::cpu_on)) when an LPI gets its first owner.
//!
//! A CPU that comes later cannot be cleared of LPIs that are in use. MOVI would merge what is
//! pending there with what is pending elsewhere. [`Gic::cpu_on`](crate::Gic::cpu_on) refuses it
//! with [`LpisInUse`](crate::lpi::AdoptionRefused::LpisInUse). Turn on all CPUs before devices
//! allocate, or reboot.
//!
//! # Cost
//! The commands of one operation are posted together, with one write of `GITS_CWRITER`, and one
//! read of `GITS_CREADR` if the ITS is fast. A device's first block of any size is one operation:
//! MAPD, a MAPTI for each event, one invalidation and one SYNC. So is [`release`](Its::release): a
//! DISCARD for each event, MAPD, and one SYNC for each redistributor concerned.
//!
//! # An ITS that does not respond
//! A task waits as long as `GITS_CREADR` advances, and the [platform's
//! bound](crate::Platform::wait) beyond that; then the ITS counts as unresponsive. Later callers
//! post their commands, poll once, and fail. The ITS counts as responsive again as soon as
//! `GITS_CREADR` advances: it executes what was posted in order, so nothing has to be reset.
//! Operations with `Context: any.` wait for one such bound in all, however long the queue is, and
//! do not declare the ITS unresponsive.
//!
//! # Locks, outermost first
//! ```text
//! state            task operations of one ITS (TaskLock: interrupts stay on)
//!   Lpis           allocator, configuration bytes
//!     ring         the command queue (IrqLock); routes and collections change under it
//!       the last fault
//! ```
//! Operations that may run in any context acquire only the ring's lock and the lock of an LPI's
//! configuration. If the redistributors have `GICR_INVLPIR`, masking acquires the ring's lock only
//! when the register cannot be used, for example while a move is in progress.

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
mod probe;
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

/// One ITS, enabled. Dropped by a task while no device is attached, it is disabled and its memory
/// is freed. With devices it goes on as it is: they may still send messages.
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
    /// Room for a batch to note each redistributor that it concerns: nothing is allocated under the
    /// queue's lock.
    targets: Vec<RdBase>,
    /// Collections at which the LPIs of the block being mapped must be cleared. Has room for all
    /// collections if LPI tables were adopted.
    to_clear: Vec<CollectionId>,
}

impl<P: GicPlatform> Its<P> {
    /// Quiesces the ITS for a suspend of the system: its caches are written to memory, and later
    /// messages are dropped. Devices must have stopped sending messages. Must be called on the last
    /// CPU, while no task is within an operation of this ITS: its lock would have to be waited for.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if it does not become quiescent. It then continues to work.
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
    /// [`ItsError::Fault`].
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

    /// Physical base address.
    pub fn base(&self) -> u64 {
        self.frame.base
    }

    /// Physical address of the doorbell, `GITS_TRANSLATER`, or the lowest of the doorbells in
    /// the [window](ItsConfig::pre_its) before the ITS.
    pub fn doorbell(&self) -> u64 {
        self.doorbell_of(DeviceId::new(0))
    }

    fn doorbell_of(&self, device: DeviceId) -> u64 {
        match self.doorbell_window {
            Some(window) => config::pre_its_doorbell(window, device),
            None => self.frame.base + u64::from(gits::TRANSLATER.offset()),
        }
    }

    /// The hardware's features.
    pub fn typer(&self) -> Typer {
        self.typer
    }

    /// Errata of this ITS. The driver works around those that concern it alone; with
    /// [`ItsLocalNodeOnly`](crate::errata::Erratum::ItsLocalNodeOnly), the caller states its
    /// [targets](ItsConfig::targets).
    pub fn errata(&self) -> impl Iterator<Item = &'static ErratumEntry> {
        self.errata.iter().copied()
    }

    /// The LPIs that this ITS allocates from.
    pub fn lpis(&self) -> &Lpis<P> {
        self.gic.lpis()
    }

    /// Number of failures in operations that cannot report one (unmap, detach, mask), and the last
    /// failure.
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

    /// The name of a redistributor in commands.
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
