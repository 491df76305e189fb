//! Events: mapped to LPIs, moved between CPUs, masked, made pending, discarded.

use super::collections::cpu_of;
use super::command_queue::FailedRun;
use super::device::{Device, Mapping};
use super::error::{ItsError, QueueError, fault};
use super::queue_wait::Context;
use super::routes::EventRoute;
use super::sequences::{EventBlock, EventBlocks, made_in_order, map_event};
use super::{Its, TaskState};
use crate::Alignment;
use crate::platform::GicPlatform;
use core::num::NonZeroU16;
use gic_arch::its::{CollectionId, Command, MapAction, Opcode, RdBase};
use gic_arch::{Lpi, Priority};
use msi_types::{
    Attachment, Cpu, DeviceId, EventId, HwIrqBlock, Initially, MsiMessage, Pending, Shape,
};

/// A request for events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EventRequest {
    /// Number of events.
    pub count: NonZeroU16,
    /// The form of the EventIDs: independent, or an aligned group.
    pub shape: Shape,
    /// The first target.
    pub cpu: Cpu,
    /// Forwarded at once or not.
    pub initially: Initially,
}

impl EventRequest {
    /// Independent events with this target, forwarded at once.
    pub const fn new(count: NonZeroU16, cpu: Cpu) -> Self {
        Self { count, shape: Shape::Independent, cpu, initially: Initially::Unmasked }
    }

    msi_types::setters! {
        with_count: count: NonZeroU16,
        with_shape: shape: Shape,
        with_cpu: cpu: Cpu,
        with_initially: initially: Initially,
    }
}

impl<P: GicPlatform> Its<P> {
    /// Maps consecutive events to consecutive LPIs, all of them or none, as one batch. The vectors
    /// of the block are the LPIs' INTIDs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`], [`ItsError::NoEvents`], [`ItsError::NoLpis`],
    /// [`ItsError::NoMemory`], [`ItsError::Fault`].
    pub fn map_events(
        &self,
        attachment: &Attachment,
        request: EventRequest,
    ) -> Result<HwIrqBlock, ItsError> {
        self.state.with(self.platform(), |state| {
            self.finish_deferred_unmaps(state)?;
            let (collection, target) = self.collections.of_cpu(request.cpu)?;
            let (device, first_event) = self.allocate_events(state, attachment, request)?;
            let allocated = self.allocate_lpis(state, device, first_event, request.count);
            let block = allocated.inspect_err(|_| {
                free_events(state, attachment, device, first_event, request.count);
            })?;
            if request.initially == Initially::Unmasked && state.to_clear.is_empty() {
                self.enable_all(block);
            }
            let posted = self.post_map(state, block, collection, target);
            let constraints = (collection, target);
            match posted
                .and_then(|()| self.finish_clearing(state, block, request.initially, constraints))
            {
                Ok(()) => Ok(HwIrqBlock::new(block.first_lpi.intid().hwirq(), request.count)),
                Err(error) => {
                    self.undo_map(state, block, error);
                    free_share_events(state, attachment, request.count);
                    Err(error.at(self.frame.base))
                }
            }
        })
    }

    /// Discards events and frees their LPIs. After the call none of them can become pending.
    ///
    /// Context: task; may sleep.
    #[expect(clippy::needless_pass_by_value, reason = "the caller gives the block up")]
    pub fn unmap_events(&self, attachment: &Attachment, events: HwIrqBlock) {
        self.state.with(self.platform(), |state| {
            let Some(block) = self.block_of(state, attachment, &events) else { return };
            if let Err(error) = self.finish_deferred_unmaps(state) {
                self.note(error);
            }
            free_share_events(state, attachment, block.count);
            self.discard(state, EventBlocks::One(block));
        });
    }

    /// Moves an event, and its pending state, to another CPU; its message stays as it is. On return
    /// it can no longer become pending at the old CPU. Returns the old CPU. Callers must not move
    /// the same LPI concurrently.
    ///
    /// A masked LPI may be signalled once at its new CPU before this returns: the redistributor may
    /// have cached an old configuration of the LPI, which can be invalidated only after the event
    /// has moved there (INV follows MOVI; IHI 0069 §5.3). Kernels must record interrupts that
    /// arrive while they are disabled.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`], [`ItsError::NotReachable`], [`ItsError::Fault`]: the event was not
    /// moved.
    pub fn move_event(&self, lpi: Lpi, to: Cpu) -> Result<Cpu, ItsError> {
        let mut answer = Err(ItsError::NotMapped(lpi));
        let mut moved = None;
        self.invalidation.begin_move();
        let mut commands = made_in_order(|| {
            let route = self.routes.of(lpi)?;
            let bound = self.collections.of_cpu(to);
            answer = bound.map(|_| cpu_of(route.collection));
            let (collection, target) = bound.ok()?;
            let from = self.collections.target(route.collection)?;
            let new = EventRoute { collection, ..route };
            if new == route {
                return None;
            }
            moved = Some((route, new));
            Some(self.movi(lpi, new, from, target))
        });
        let result = self.queue.run(&self.frame, Context::Task, &mut commands);
        drop(commands);
        let Err(FailedRun { error, .. }) = result else {
            self.invalidation.end_move();
            return answer;
        };
        if let Some((old, new)) = moved {
            self.undo_move(lpi, old, new, error);
        } else {
            self.invalidation.end_move();
        }
        Err(error.at(self.frame.base))
    }

    /// Commands that move an event, under the queue's lock.
    ///
    /// The invalidation is for a redistributor that had the LPI before and cached its
    /// configuration: MOVI does not invalidate it (IHI 0069 §5.1.1, §5.3).
    fn movi(&self, lpi: Lpi, new: EventRoute, from: RdBase, to: RdBase) -> [Command; 4] {
        self.routes.set(lpi, Some(new));
        let (device, event) = (new.device, new.event_id());
        [
            Command::Movi { device, event, collection: new.collection },
            Command::Inv { device, event },
            Command::Sync { target: from },
            Command::Sync { target: to },
        ]
    }

    /// Disables an LPI: messages that arrive stay pending. On return the new configuration is in
    /// effect at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`], [`ItsError::Fault`].
    pub fn mask(&self, lpi: Lpi) -> Result<(), ItsError> {
        self.lpis().disable(lpi).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Enables an LPI.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`], [`ItsError::Fault`].
    pub fn unmask(&self, lpi: Lpi) -> Result<(), ItsError> {
        self.lpis().enable(lpi).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Changes an LPI's priority, of which the two low bits are dropped. On return the new priority
    /// is in effect at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`], [`ItsError::Fault`].
    pub fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), ItsError> {
        self.lpis().set_priority(lpi, priority).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Makes an LPI pending as its device would, or clears its pending state.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`], [`ItsError::Fault`].
    pub fn set_pending(&self, lpi: Lpi, pending: Pending) -> Result<(), ItsError> {
        self.run_on_event(lpi, |device, event| match pending {
            Pending::Set => Command::Int { device, event },
            Pending::Clear => Command::Clear { device, event },
        })
    }

    /// Returns the event of an LPI, and the CPU to which it is delivered.
    ///
    /// Context: any.
    pub fn event_of(&self, lpi: Lpi) -> Option<(DeviceId, EventId, Cpu)> {
        let route = self.routes.of(lpi)?;
        Some((route.device, route.event_id(), cpu_of(route.collection)))
    }

    /// Returns the message by which its device makes an LPI pending.
    ///
    /// Context: any.
    pub fn message(&self, lpi: Lpi) -> Option<MsiMessage> {
        let route = self.routes.of(lpi)?;
        Some(MsiMessage { address: self.doorbell_of(route.device), data: route.event_id().get() })
    }

    /// One command for an event, and a SYNC for where it is delivered at that moment of the queue.
    pub(super) fn run_on_event(
        &self,
        lpi: Lpi,
        command: impl Fn(DeviceId, EventId) -> Command,
    ) -> Result<(), ItsError> {
        let mut answer = Err(ItsError::NotMapped(lpi));
        let mut commands = made_in_order(|| {
            let route = self.routes.of(lpi)?;
            let target = self.collections.target(route.collection)?;
            answer = Ok(());
            Some([command(route.device, route.event_id()), Command::Sync { target }])
        });
        let result = self.queue.run(&self.frame, Context::Any, &mut commands);
        drop(commands);
        result.map_err(|failed| failed.error.at(self.frame.base))?;
        answer
    }

    fn allocate_events(
        &self,
        state: &mut TaskState,
        attachment: &Attachment,
        request: EventRequest,
    ) -> Result<(DeviceId, u16), ItsError> {
        let unknown = fault(self.frame.base, "MAPTI", "the attachment is not of this ITS");
        let quota = state.quotas.get_mut(attachment.cookie()).ok_or(unknown)?;
        let none = ItsError::NoEvents { wanted: request.count.get(), limit: quota.limit };
        let used = quota.used + u32::from(request.count.get());
        if used > quota.limit {
            return Err(none);
        }
        let known = state.devices.get_mut(quota.device).ok_or(unknown)?;
        let first = known.allocate_events(request.count, request.shape).ok_or(none)?;
        quota.used = used;
        Ok((quota.device, first))
    }

    /// Allocates LPIs, and finds the collections at which they must be cleared.
    fn allocate_lpis(
        &self,
        state: &mut TaskState,
        device: DeviceId,
        first_event: u16,
        count: NonZeroU16,
    ) -> Result<EventBlock, ItsError> {
        let lpis = self
            .lpis()
            .allocate(count.into(), Alignment::ONE)
            .map_err(|_| ItsError::NoLpis { wanted: count.get() })?;
        let block = EventBlock { device, first_event, first_lpi: lpis.first(), count };
        let routes = self.routes.reserve(block.first_lpi, count.get());
        let ready = routes.map_err(|_| ItsError::NoMemory("routes of LPIs"));
        ready
            .and_then(|()| self.find_stale(state, block))
            .inspect_err(|_| self.free_lpis(&EventBlocks::One(block)))?;
        Ok(block)
    }

    /// The device and events of a block. A block that is not the attachment's is recorded as a
    /// fault.
    pub(super) fn block_of(
        &self,
        state: &TaskState,
        attachment: &Attachment,
        events: &HwIrqBlock,
    ) -> Option<EventBlock> {
        let find = || {
            let quota = state.quotas.get(attachment.cookie())?;
            let first_lpi = Lpi::try_from(events.first().get()).ok()?;
            let route = self.routes.of(first_lpi).filter(|route| route.device == quota.device)?;
            Some(EventBlock {
                device: route.device,
                first_event: route.event,
                first_lpi,
                count: events.count(),
            })
        };
        let found = find();
        if found.is_none() {
            let reason = "the block is not of this attachment";
            self.note(fault(self.frame.base, "DISCARD", reason));
        }
        found
    }

    /// Everything that a new block needs, as one batch.
    ///
    /// The invalidation is necessary even though the LPIs were free. A redistributor may have
    /// cached the configuration bytes for their previous owner, or with their neighbours'. MAPTI
    /// does not make it look again.
    fn post_map(
        &self,
        state: &mut TaskState,
        block: EventBlock,
        collection: CollectionId,
        target: RdBase,
    ) -> Result<(), QueueError> {
        let Some(known) = state.devices.get_mut(block.device) else { return Ok(()) };
        let mapd = match known.mapping {
            Mapping::Unmapped => Some(known.mapd(block.device, MapAction::Map)),
            Mapping::Mapped => None,
        };
        let to_clear = &state.to_clear;
        let map = block.lpis().flat_map(|(event, lpi)| {
            let route = EventRoute::new(block.device, event, collection);
            map_event(&self.routes, lpi, route, to_clear)
        });
        let others = to_clear.iter().filter(|other| **other != collection);
        let syncs = others.filter_map(|other| self.collections.target(*other));
        let syncs = syncs.chain([target]).map(|target| Command::Sync { target });
        let mut told = false;
        let mapd = mapd.into_iter().inspect(|_| told = true);
        let mut commands = mapd.chain(map).chain([invalidation(block, collection)]).chain(syncs);
        let result = self
            .queue
            .run(&self.frame, Context::Task, &mut commands)
            .map_err(|failed| failed.error);
        drop(commands);
        let refused = matches!(
            result,
            Err(QueueError::Stalled(Some(command))) if command.opcode() == Opcode::Mapd
        );
        // After a timeout it is in the queue, ahead of all later commands.
        if told && !refused {
            known.mapping = Mapping::Mapped;
        }
        result
    }

    /// Undoes a mapping that failed.
    fn undo_map(&self, state: &mut TaskState, block: EventBlock, error: QueueError) {
        if let QueueError::Stalled(Some(command)) = error {
            let forget = |(event, lpi): (u16, Lpi)| {
                let its_own =
                    command.event().is_none_or(|refused| refused.get() == u32::from(event));
                if its_own {
                    self.routes.set(lpi, None);
                }
            };
            // An event that the ITS refused cannot be discarded, nor any of a device that it
            // refused.
            if matches!(command.opcode(), Opcode::Mapd | Opcode::Mapti) {
                block.lpis().for_each(forget);
            }
        }
        self.discard(state, EventBlocks::One(block));
    }

    fn undo_move(&self, lpi: Lpi, old: EventRoute, new: EventRoute, error: QueueError) {
        if let QueueError::Stalled(Some(Command::Movi { .. })) = error {
            self.routes.set(lpi, Some(old));
            return self.invalidation.end_move();
        }
        // The MOVI was executed, or may be later; a second one behind it undoes it. If that finds
        // no room, the route keeps describing the queue's result.
        let mut back = made_in_order(|| {
            let from = self.collections.target(new.collection)?;
            let to = self.collections.target(old.collection)?;
            Some(self.movi(lpi, old, from, to))
        });
        if let Err(error) = self.queue.try_post(&self.frame, &mut back) {
            self.note(error.at(self.frame.base));
        }
    }

    /// Enables a block's LPIs in the configuration table: those that were allocated are within it.
    pub(super) fn enable_all(&self, block: EventBlock) {
        for (_, lpi) in block.lpis() {
            let result = self.lpis().enable(lpi);
            debug_assert!(result.is_ok(), "its@{:x}: {result:?}", self.frame.base);
        }
    }
}

/// Makes a redistributor read the configuration bytes of a block anew.
pub(super) fn invalidation(block: EventBlock, collection: CollectionId) -> Command {
    if block.count.get() == 1 {
        Command::Inv { device: block.device, event: EventId::new(block.first_event.into()) }
    } else {
        Command::Invall { collection }
    }
}

fn free_share_events(state: &mut TaskState, attachment: &Attachment, count: NonZeroU16) {
    if let Some(quota) = state.quotas.get_mut(attachment.cookie()) {
        quota.used = quota.used.saturating_sub(count.get().into());
    }
}

fn free_events(
    state: &mut TaskState,
    attachment: &Attachment,
    device: DeviceId,
    first: u16,
    count: NonZeroU16,
) {
    free_share_events(state, attachment, count);
    if let Some(known) = state.devices.get_mut(device) {
        Device::free_events(known, first, count);
    }
}
