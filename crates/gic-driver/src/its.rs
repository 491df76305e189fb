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
//!       last_fault
//! ```
//! Operations that may run in any context acquire only the ring's lock and the lock of an LPI's
//! configuration. If the redistributors have `GICR_INVLPIR`, masking acquires the ring's lock only
//! when the register cannot be used, for example while a move is in progress.

mod adoption;
mod collections;
mod command_queue;
mod config;
mod control_frame;
mod deferred_unmap;
mod device;
mod errata;
mod error;
mod events;
mod faults;
mod hotplug;
mod id_map;
mod invalidation;
mod msi_parent;
mod probe;
mod queue_wait;
mod register_invalidation;
mod resend;
mod routes;
mod sequences;
mod table_constraints;
mod tables;
mod unmapping;

pub use config::{IfEnabled, ItsConfig};
pub use error::{ItsError, ProbeError};
pub use events::EventRequest;
pub use id_map::{IdMap, IdRange};
pub use msi_parent::ItsMsiParent;

use crate::errata::ErratumEntry;
use crate::gic::GicWithLpis;
use crate::lpi::Lpis;
use crate::platform::{GicPlatform, PhysicalRegion, TimedOut};
use crate::redistributor::Redistributor;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use collections::Collections;
use command_queue::CommandQueue;
use control_frame::ControlFrame;
use core::sync::atomic::{AtomicU32, Ordering};
use deferred_unmap::DeferredUnmap;
use device::{Device, EventQuota, Mapping, max_events};
use doorbell_fallible::SortedMap;
use doorbell_lock::{IrqLock, TaskLock};
use gic_arch::gits::{self, Typer};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::{Attachment, DeviceId, HwIrqBlock};
use queue_wait::Context;
use register_invalidation::RegisterInvalidation;
use routes::EventRoutes;
use sequences::EventBlocks;
use table_constraints::TableConstraints;
use tables::ItsTable;

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
    invalidation: RegisterInvalidation,
    constraints: TableConstraints,
    doorbell_window: Option<PhysicalRegion>,
    errata: Vec<&'static ErratumEntry>,
    state: TaskLock<TaskState>,
    faults: AtomicU32,
    last_fault: IrqLock<Option<ItsError>>,
}

/// State that only tasks access.
#[derive(Debug)]
struct TaskState {
    device_table: ItsTable,
    collection_table: Option<ItsTable>,
    device_id_bits: u8,
    devices: SortedMap<DeviceId, Device>,
    /// By the cookie of their [`Attachment`].
    quotas: SortedMap<u32, EventQuota>,
    next_cookie: u32,
    deferred_unmaps: VecDeque<DeferredUnmap>,
    /// Room for a batch to note each redistributor that it concerns: nothing is allocated under the
    /// queue's lock.
    targets: Vec<RdBase>,
    /// Collections at which the LPIs of the block being mapped must be cleared. Has room for all
    /// collections if LPI tables were adopted.
    to_clear: Vec<CollectionId>,
}

impl<P: GicPlatform> Its<P> {
    /// Attaches a device, for at most `max` more events. All requesters with this DeviceID share
    /// one translation table; each caller receives a separate quota.
    ///
    /// Context: task; may sleep.
    ///
    /// A table that is too small for one more quota is replaced if no event is in use. Otherwise
    /// the attachment is refused, because messages would be lost during the replacement.
    ///
    /// # Errors
    /// [`ItsError::DeviceIdOutOfRange`], [`ItsError::TooManyEvents`],
    /// [`ItsError::AttachedForFewer`], [`ItsError::NoMemory`], [`ItsError::Misplaced`].
    pub fn attach(&self, device: DeviceId, max: u32) -> Result<Attachment, ItsError> {
        self.attach_shared(device, max, max)
    }

    /// As [`attach`](Self::attach), with a table for `room` events at least: others behind the same
    /// DeviceID will come.
    pub(crate) fn attach_shared(
        &self,
        device: DeviceId,
        max: u32,
        room: u32,
    ) -> Result<Attachment, ItsError> {
        self.state.with(self.platform(), |state| {
            if u64::from(device.get()) >= state.device_table.ids() {
                return Err(ItsError::DeviceIdOutOfRange {
                    id: device,
                    bits: state.device_id_bits,
                });
            }
            self.finish_deferred_unmaps(state)?;
            let no_memory = |_| ItsError::NoMemory("a device's attachment");
            state.quotas.reserve().map_err(no_memory)?;
            state.devices.reserve().map_err(no_memory)?;
            state
                .device_table
                .ensure(&self.frame, device.get())
                .map_err(|error| ItsError::no_table("a second-level ITS table", error))?;
            self.attach_device(state, device, max, room)?;
            let cookie = state.new_cookie();
            state.quotas.insert(cookie, EventQuota { device, limit: max, used: 0 });
            Ok(Attachment::new(cookie))
        })
    }

    /// Removes a quota. Removing the last quota of a device unmaps the device and frees its table,
    /// if all its events were unmapped. If its owner left events mapped, the device stays mapped,
    /// too.
    ///
    /// Context: task; may sleep.
    pub fn detach(&self, attachment: Attachment) {
        self.release(attachment, &mut core::iter::empty());
    }

    /// Removes a quota with all its events, as [`unmap_events`](Self::unmap_events) for each of the
    /// `blocks` and [`detach`](Self::detach) would, but as one batch.
    ///
    /// Context: task; may sleep.
    #[expect(clippy::needless_pass_by_value, reason = "the caller gives the attachment up")]
    pub fn release(&self, attachment: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        // Before the lock: the caller's iterator may take locks of its own.
        let mut known = Vec::new();
        for block in blocks {
            if known.try_reserve(1).is_err() {
                self.unmap_events(&attachment, block);
            } else {
                let found = self
                    .state
                    .with(self.platform(), |state| self.block_of(state, &attachment, &block));
                known.extend(found);
            }
        }
        self.state.with(self.platform(), |state| {
            if let Err(error) = self.finish_deferred_unmaps(state) {
                self.note(error);
            }
            if let Some(quota) = state.quotas.remove(attachment.cookie()) {
                self.detach_quota(state, &quota, EventBlocks::Many(known));
            }
        });
    }

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
            self.close_all_registers()?;
            let stopped = self.queue.stop(&self.frame).map_err(|error| error.at(self.frame.base));
            let quiet = stopped.and_then(|()| {
                self.quiesce().inspect_err(|_| {
                    self.frame.enable();
                    self.queue.start(&self.frame);
                })
            });
            quiet.inspect_err(|_| self.open_all_registers())
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
            state.device_table.restore(&self.frame);
            if let Some(table) = &state.collection_table {
                table.restore(&self.frame);
            }
            self.queue.start(&self.frame);
            self.frame.enable();
            self.run(&mut self.collections.recover())?;
            self.open_all_registers();
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
            Some(window) => errata::pre_its_doorbell(window, device),
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
        let last = self.last_fault.with(self.platform(), |last| *last);
        (self.faults.load(Ordering::Relaxed), last)
    }

    /// Removes a quota with its blocks, and unmaps the device if no other quota has events.
    fn detach_quota(&self, state: &mut TaskState, quota: &EventQuota, blocks: EventBlocks) {
        let Some(known) = state.devices.get_mut(quota.device) else { return };
        known.remove_quota(quota);
        let events: u32 = blocks.as_slice().iter().map(|block| u32::from(block.count.get())).sum();
        if known.users == 0 && known.allocated_events() == events {
            if let Some(device) = state.devices.remove(quota.device) {
                self.unmap_device(state, quota.device, device, blocks);
            }
        } else if !blocks.as_slice().is_empty() {
            self.discard(state, blocks);
        }
    }

    /// Unmaps a device that has neither quotas nor events.
    fn drop_unused(&self, state: &mut TaskState, id: DeviceId) {
        let unused =
            state.devices.get(id).is_some_and(|device| device.users == 0 && device.is_idle());
        if unused && let Some(device) = state.devices.remove(id) {
            self.unmap_device(state, id, device, EventBlocks::None);
        }
    }

    /// Unmaps a device that has these blocks left, and no others.
    fn unmap_device(
        &self,
        state: &mut TaskState,
        id: DeviceId,
        device: Device,
        blocks: EventBlocks,
    ) {
        match device.mapping {
            // MAPD is sent with a device's first block: none was mapped.
            Mapping::Unmapped => self.platform().release_table(device.itt),
            Mapping::Mapped => {
                let unmap = device.mapd(id, MapAction::Unmap);
                self.release_device(state, unmap, device.itt, blocks);
            }
        }
    }

    /// Adds a quota to a known device, or to a new one.
    fn attach_device(
        &self,
        state: &mut TaskState,
        id: DeviceId,
        max: u32,
        room: u32,
    ) -> Result<(), ItsError> {
        let room = room.min(max_events(self.typer));
        let mut wanted = max.max(room);
        if let Some(known) = state.devices.get_mut(id) {
            if known.add_quota(max) {
                return Ok(());
            }
            if !known.is_idle() {
                return Err(ItsError::AttachedForFewer(id));
            }
            wanted = known.reserved().saturating_add(max).max(room);
        }
        let mut device = Device::provision(self.platform(), self.typer, wanted, self.constraints)?;
        if let Some(old) = state.devices.remove(id) {
            device.inherit(&old);
            self.unmap_device(state, id, old, EventBlocks::None);
        }
        let added = device.add_quota(max);
        debug_assert!(added, "the table was made for it");
        state.devices.insert(id, device);
        Ok(())
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
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.last_fault.with(self.platform(), |last| *last = Some(error));
    }

    fn platform(&self) -> &P {
        &self.frame.platform
    }
}

impl TaskState {
    /// Attachments are few: a free number is near.
    fn new_cookie(&mut self) -> u32 {
        while self.quotas.contains(self.next_cookie) {
            self.next_cookie = self.next_cookie.wrapping_add(1);
        }
        self.next_cookie
    }
}
