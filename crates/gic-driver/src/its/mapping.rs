//! Maps events to LPIs with one batch of commands per block, and rolls back failed mappings. Moves,
//! masks and invalidates mapped events, and sets their pending state.
//!
//! If LPI tables were adopted from a previous kernel, a new block's LPIs are cleared at the
//! redistributors using those tables before their first owner uses them.

use super::attachment::free_lpis;
use super::command_queue::FailedRun;
use super::devices::{EventBlock, EventBlocks, Mapping, made_in_order, map_event};
use super::error::{ItsError, QueueError, fault};
use super::routes::{EventRoute, cpu_of};
use super::tables::Context;
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
    pub(crate) count: NonZeroU16,
    pub(crate) shape: Shape,
    /// The initial target.
    pub(crate) cpu: Cpu,
    pub(crate) initially: Initially,
}

impl EventRequest {
    /// Creates a request for independent events with this target, initially unmasked.
    pub const fn new(count: NonZeroU16, cpu: Cpu) -> Self {
        Self { count, shape: Shape::Independent, cpu, initially: Initially::Unmasked }
    }

    msi_types::setters! {
        /// Sets the shape of the block of EventIDs: independent events, or an aligned group.
        with_shape: shape: Shape,
        /// Sets the initial mask state of the LPIs.
        with_initially: initially: Initially,
    }
}

impl TaskState {
    /// Implements [`Its::map_events`].
    pub(super) fn map_events<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        attachment: &Attachment,
        request: EventRequest,
    ) -> Result<HwIrqBlock, ItsError> {
        let EventRequest { count, shape, cpu, initially } = request;
        self.finish_deferred_unmaps(its)?;
        let at = its.collections.of_cpu(cpu)?;
        let (device, first_event) =
            self.devices.allocate_events(its.frame.base, attachment, count, shape)?;
        let allocated = self.allocate_lpis(its, device, first_event, count);
        let block = allocated.inspect_err(|_| {
            self.devices.return_events(attachment, count);
            self.devices.free_events(device, first_event, count);
        })?;
        if initially == Initially::Unmasked && self.to_clear.is_empty() {
            enable_all(its, block);
        }
        let posted = self.post_map(its, block, at);
        match posted.and_then(|()| self.finish_clearing(its, block, initially, at)) {
            Ok(()) => Ok(HwIrqBlock::new(block.first_lpi.intid().hwirq(), count)),
            Err(error) => {
                self.undo_map(its, block, error);
                self.devices.return_events(attachment, count);
                Err(error.at(its.frame.base))
            }
        }
    }

    /// Implements [`Its::unmap_events`].
    pub(super) fn unmap_events<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        attachment: &Attachment,
        events: &HwIrqBlock,
    ) {
        let Some(block) = self.block_of(its, attachment, events) else { return };
        if let Err(error) = self.finish_deferred_unmaps(its) {
            its.note(error);
        }
        self.devices.return_events(attachment, block.count);
        self.discard(its, EventBlocks::One(block));
    }

    /// Allocates LPIs, and determines the collections at which they must be cleared.
    fn allocate_lpis<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        device: DeviceId,
        first_event: u16,
        count: NonZeroU16,
    ) -> Result<EventBlock, ItsError> {
        let lpis = its
            .lpis()
            .allocate(count.into(), Alignment::ONE)
            .map_err(|_| ItsError::NoLpis { wanted: count.get() })?;
        let block = EventBlock { device, first_event, first_lpi: lpis.first(), count };
        let routes = its.routes.reserve(block.first_lpi, count.get());
        let ready = routes.map_err(|_| ItsError::NoMemory("routes of LPIs"));
        ready
            .and_then(|()| self.find_stale(its, block))
            .inspect_err(|_| free_lpis(its, &EventBlocks::One(block)))?;
        Ok(block)
    }

    /// Returns the device and events of a block. Records a fault if the block does not belong to
    /// the attachment.
    pub(super) fn block_of<P: GicPlatform>(
        &self,
        its: &Its<P>,
        attachment: &Attachment,
        events: &HwIrqBlock,
    ) -> Option<EventBlock> {
        let find = || {
            let quota = self.devices.quota(attachment)?;
            let first_lpi = Lpi::try_from(events.first().get()).ok()?;
            let route = its.routes.of(first_lpi).filter(|route| route.device == quota.device)?;
            Some(EventBlock {
                device: route.device,
                first_event: route.event,
                first_lpi,
                count: events.count(),
            })
        };
        let found = find();
        if found.is_none() {
            let reason = "the block does not belong to this attachment";
            its.note(fault(its.frame.base, "DISCARD", reason));
        }
        found
    }

    /// Posts all commands for a new block as one batch.
    ///
    /// The invalidation is needed even though the LPIs were free. A redistributor may have cached
    /// their configuration bytes for a previous owner or along with neighboring bytes, and MAPTI
    /// doesn't invalidate them.
    fn post_map<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        block: EventBlock,
        (collection, target): (CollectionId, RdBase),
    ) -> Result<(), QueueError> {
        let Some(known) = self.devices.attached.get_mut(block.device) else { return Ok(()) };
        let mapd = match known.mapping {
            Mapping::Unmapped => Some(known.mapd(block.device, MapAction::Map)),
            Mapping::Mapped => None,
        };
        let to_clear = &self.to_clear;
        let map = block.lpis().flat_map(|(event, lpi)| {
            let route = EventRoute::new(block.device, event, collection);
            map_event(&its.routes, lpi, route, to_clear)
        });
        let others = to_clear.iter().filter(|other| **other != collection);
        let syncs = others.filter_map(|other| its.collections.target(*other));
        let syncs = syncs.chain([target]).map(|target| Command::Sync { target });
        let mut told = false;
        let mapd = mapd.into_iter().inspect(|_| told = true);
        let mut commands = mapd.chain(map).chain([invalidation(block, collection)]).chain(syncs);
        let result =
            its.queue.run(&its.frame, Context::Task, &mut commands).map_err(|failed| failed.error);
        drop(commands);
        let refused = matches!(
            result,
            Err(QueueError::Stalled(Some(command))) if command.opcode() == Opcode::Mapd
        );
        // After a timeout, MAPD is still in the queue, ahead of any later command.
        if told && !refused {
            known.mapping = Mapping::Mapped;
        }
        result
    }

    /// Rolls back a mapping that failed.
    fn undo_map<P: GicPlatform>(&mut self, its: &Its<P>, block: EventBlock, error: QueueError) {
        if let QueueError::Stalled(Some(command)) = error {
            let forget = |(event, lpi): (u16, Lpi)| {
                let its_own =
                    command.event().is_none_or(|refused| refused.get() == u32::from(event));
                if its_own {
                    its.routes.set(lpi, None);
                }
            };
            // An event that the ITS refused can't be discarded. If the ITS refused the device's
            // MAPD, none of the device's events can be discarded.
            if matches!(command.opcode(), Opcode::Mapd | Opcode::Mapti) {
                block.lpis().for_each(forget);
            }
        }
        self.discard(its, EventBlocks::One(block));
    }

    /// Determines the collections of all redistributors at which a new block's LPIs must be
    /// cleared. The list is empty if no tables were adopted, or if the LPIs have had an owner
    /// before.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if one of the redistributors is not a target of this ITS.
    fn find_stale<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        block: EventBlock,
    ) -> Result<(), ItsError> {
        self.to_clear.clear();
        if its.lpis().are_clear(&block.range()) {
            return Ok(());
        }
        for at in (0..).map_while(|index| its.lpis().stale_at(index)) {
            let target = its.rd_base_of(at.address, at.processor_number);
            let reason = "a redistributor at which LPIs of a previous kernel may be pending is not \
                a target of this ITS";
            let collection = its.collections.of_target(target);
            // The insertion doesn't allocate, because the vector has room for all collections.
            self.to_clear.push(collection.ok_or(fault(its.frame.base, "CLEAR", reason))?);
        }
        Ok(())
    }

    /// Enables the LPIs of a block if they had to be cleared first. Must not be called before the
    /// block is mapped and its LPIs are cleared.
    fn finish_clearing<P: GicPlatform>(
        &self,
        its: &Its<P>,
        block: EventBlock,
        initially: Initially,
        (collection, target): (CollectionId, RdBase),
    ) -> Result<(), QueueError> {
        if self.to_clear.is_empty() {
            return Ok(());
        }
        its.lpis().note_cleared(&block.range());
        if initially == Initially::Masked {
            return Ok(());
        }
        enable_all(its, block);
        let mut commands = [invalidation(block, collection), Command::Sync { target }].into_iter();
        its.queue.run(&its.frame, Context::Task, &mut commands).map_err(|failed| failed.error)
    }
}

/// Enables a block's LPIs in the configuration table.
fn enable_all<P: GicPlatform>(its: &Its<P>, block: EventBlock) {
    for (_, lpi) in block.lpis() {
        let result = its.lpis().enable(lpi);
        debug_assert!(result.is_ok(), "its@{:x}: {result:?}", its.frame.base);
    }
}

/// Returns the command that invalidates the cached configuration of a block of LPIs.
fn invalidation(block: EventBlock, collection: CollectionId) -> Command {
    if block.count.get() == 1 {
        Command::Inv { device: block.device, event: EventId::new(block.first_event.into()) }
    } else {
        Command::Invall { collection }
    }
}

impl<P: GicPlatform> Its<P> {
    /// Moves an event and its pending state to another CPU. The event's message does not change. On
    /// return, the event can no longer become pending at the old CPU. Returns the old CPU. Callers
    /// must not move the same LPI concurrently.
    ///
    /// A masked LPI may be signaled once at its new CPU before this returns: the redistributor may
    /// have cached an old configuration of the LPI, and this can only be invalidated after the
    /// event has moved there (INV follows MOVI; IHI 0069 §5.3). Kernels must be able to record
    /// interrupts that arrive while disabled.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped, [`ItsError::NotReachable`] if the CPU is
    /// off, or [`ItsError::Fault`] if a command fails. On error, the event was not moved.
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
        let result = self.queue.run_raw(&self.frame, Context::Task, &mut commands);
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

    /// Changes the route of an event and returns the commands that move it. Must be called with the
    /// queue's lock held.
    ///
    /// The invalidation is needed because the redistributor may have cached the LPI's configuration
    /// while it was an earlier target; MOVI doesn't invalidate it (IHI 0069 §5.1.1, §5.3).
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

    /// Disables an LPI. Messages that arrive while it is disabled stay pending. On return, the new
    /// configuration is in effect at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the invalidation.
    pub fn mask(&self, lpi: Lpi) -> Result<(), ItsError> {
        self.lpis().disable(lpi).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Enables an LPI.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the invalidation.
    pub fn unmask(&self, lpi: Lpi) -> Result<(), ItsError> {
        self.lpis().enable(lpi).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Changes an LPI's priority; the two low bits are ignored. On return, the new priority is in
    /// effect at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the invalidation.
    pub fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), ItsError> {
        self.lpis().set_priority(lpi, priority).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Makes an LPI pending, as a message from its device would, or clears its pending state.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the command.
    pub fn set_pending(&self, lpi: Lpi, pending: Pending) -> Result<(), ItsError> {
        self.run_on_event(lpi, |device, event| match pending {
            Pending::Set => Command::Int { device, event },
            Pending::Clear => Command::Clear { device, event },
        })
    }

    /// Returns an LPI's event and the CPU to which it is delivered.
    ///
    /// Context: any.
    pub fn event_of(&self, lpi: Lpi) -> Option<(DeviceId, EventId, Cpu)> {
        let route = self.routes.of(lpi)?;
        Some((route.device, route.event_id(), cpu_of(route.collection)))
    }

    /// Returns the message that makes an LPI pending when its device sends it.
    ///
    /// Context: any.
    pub fn message(&self, lpi: Lpi) -> Option<MsiMessage> {
        let route = self.routes.of(lpi)?;
        Some(MsiMessage { address: self.doorbell_of(route.device), data: route.event_id().get() })
    }

    /// Invalidates an LPI's configuration at its redistributor, using the redistributor's register
    /// if possible, and the INV command otherwise.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the command.
    pub fn invalidate(&self, lpi: Lpi) -> Result<(), ItsError> {
        match self.invalidation.invalidate(lpi, &self.routes) {
            Some(()) => Ok(()),
            None => self.run_on_event(lpi, |device, event| Command::Inv { device, event }),
        }
    }

    /// Runs one command for an event, and a SYNC for the redistributor that is the event's target
    /// when the command enters the queue.
    fn run_on_event(
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
        let result = self.queue.run_raw(&self.frame, Context::Any, &mut commands);
        drop(commands);
        result.map_err(|failed| failed.error.at(self.frame.base))?;
        answer
    }

    fn undo_move(&self, lpi: Lpi, old: EventRoute, new: EventRoute, error: QueueError) {
        if let QueueError::Stalled(Some(Command::Movi { .. })) = error {
            self.routes.set(lpi, Some(old));
            return self.invalidation.end_move();
        }
        // The ITS has executed the MOVI or may still do so. Undo the MOVI with another one. If the
        // queue has no room for it, the recorded route is still correct, because it describes the
        // result of the queued commands.
        let mut back = made_in_order(|| {
            let from = self.collections.target(new.collection)?;
            let to = self.collections.target(old.collection)?;
            Some(self.movi(lpi, old, from, to))
        });
        if let Err(error) = self.queue.try_post(&self.frame, &mut back) {
            self.note(error.at(self.frame.base));
        }
    }
}
