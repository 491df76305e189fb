//! Attaches, detaches and unmaps devices. LPIs and tables are freed only after the ITS has executed
//! the commands that end their use.
//!
//! The driver discards events and unmaps devices before it reuses their LPIs and tables. If the ITS
//! doesn't respond in time, it may still execute these commands (or earlier ones) later, so the
//! LPIs and tables must not be freed yet. Commands that didn't fit in the queue are posted before
//! any others, and their resources are freed once the ITS has consumed them. If the ITS never
//! responds, the resources are never reused.

use super::command_queue::FailedRun;
use super::devices::{
    DeferredUnmap, Device, DiscardCommands, EventBlocks, EventQuota, Mapping, Resources, max_events,
};
use super::error::{ItsError, QueueError};
use super::hardware::{Context, QueueWait};
use super::{Its, TaskState};
use crate::platform::{GicPlatform, Table};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::its::{Command, MapAction, Opcode, RdBase};
use msi_types::{Attachment, DeviceId, HwIrqBlock};

impl<P: GicPlatform> Its<P> {
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
            self.finish_deferred_unmaps(state)?;
            state.devices.reserve(&self.frame, device)?;
            self.attach_device(state, device, max, room)?;
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
            if let Some(quota) = state.devices.remove_quota(&attachment) {
                self.detach_quota(state, &quota, EventBlocks::Many(known));
            }
        });
    }

    /// Removes a quota and its blocks, and unmaps the device if no other quota has events.
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
        if let Some(device) = state.devices.remove_unused(id) {
            self.unmap_device(state, id, device, EventBlocks::None);
        }
    }

    /// Unmaps a device whose only remaining events are those in `blocks`.
    fn unmap_device(
        &self,
        state: &mut TaskState,
        id: DeviceId,
        device: Device,
        blocks: EventBlocks,
    ) {
        match device.mapping {
            // MAPD is posted with a device's first block, so no block of this device was ever
            // mapped.
            Mapping::Unmapped => self.platform().release_table(device.itt),
            Mapping::Mapped => {
                let unmap = device.mapd(id, MapAction::Unmap);
                self.release_device(state, unmap, device.itt, blocks);
            }
        }
    }

    /// Adds a quota to a device, which is created if it does not exist yet.
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
        debug_assert!(added, "the table was allocated with room for the quota");
        state.devices.insert(id, device);
        Ok(())
    }

    /// Discards all events in a device's blocks that have a route, and frees the blocks.
    pub(super) fn discard(&self, state: &mut TaskState, blocks: EventBlocks) {
        self.release_resources(state, Resources::Events(blocks));
    }

    /// Unmaps a device with its remaining events as one batch, and frees the device's table and the
    /// events' LPIs.
    pub(super) fn release_device(
        &self,
        state: &mut TaskState,
        unmap: Command,
        itt: Table,
        blocks: EventBlocks,
    ) {
        self.release_resources(state, Resources::Device { unmap, itt, blocks });
    }

    /// Executes the commands that end the use of resources, then frees them.
    fn release_resources(&self, state: &mut TaskState, resources: Resources) {
        let (result, rest) = self.run_unmap(&mut state.targets, &resources);
        let Err(FailedRun { error, span }) = result else {
            return self.free_resources(state, resources);
        };
        self.note(error.at(self.frame.base));
        if let QueueError::Stalled(refused) = error {
            return self.free_after_refusal(refused, state, resources);
        }
        match rest {
            Ok(rest) if span.is_empty() && rest.is_empty() => self.free_resources(state, resources),
            Ok(rest) if state.deferred_unmaps.try_reserve(1).is_ok() => {
                state.deferred_unmaps.push_back(DeferredUnmap {
                    posted: span,
                    rest: rest.into(),
                    resources,
                });
            }
            // Leak the resources, because the ITS may still be using them.
            _ => self.note(ItsError::NoMemory("commands that the ITS has not executed")),
        }
    }

    /// Executes the commands that end the use of resources. Also returns the commands for which the
    /// queue had no room.
    fn run_unmap(
        &self,
        targets: &mut Vec<RdBase>,
        resources: &Resources,
    ) -> (Result<(), FailedRun>, Result<Vec<Command>, TryReserveError>) {
        targets.clear();
        let blocks = resources.blocks().as_slice();
        let mut commands = DiscardCommands::new(
            &self.routes,
            &self.collections,
            blocks,
            resources.unmap(),
            targets,
        );
        let result = self.queue.run(&self.frame, Context::Task, &mut commands);
        let rest = try_collect(&mut commands);
        // Draw the remaining commands from the iterator even if they can't be stored, because
        // drawing a DISCARD removes the event's route.
        commands.for_each(drop);
        (result, rest)
    }

    /// Completes the deferred unmaps. Must be called before new commands are posted for a device.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the ITS still does not respond, or is suspended.
    pub(super) fn finish_deferred_unmaps(&self, state: &mut TaskState) -> Result<(), ItsError> {
        while let Some(mut deferred) = state.deferred_unmaps.pop_front() {
            match self.finish(&mut deferred) {
                Ok(()) => self.free_resources(state, deferred.resources),
                Err(QueueError::Stalled(refused)) => {
                    self.free_after_refusal(refused, state, deferred.resources);
                }
                Err(error @ (QueueError::Timeout(_) | QueueError::Stopped)) => {
                    state.deferred_unmaps.push_front(deferred);
                    return Err(error.at(self.frame.base));
                }
            }
        }
        Ok(())
    }

    fn finish(&self, deferred: &mut DeferredUnmap) -> Result<(), QueueError> {
        let mut rest = core::iter::from_fn(|| deferred.rest.pop_front());
        let posted = self.queue.run(&self.frame, Context::Task, &mut rest);
        if let Err(FailedRun { span, .. }) = &posted {
            deferred.posted.extend(span);
        }
        posted.map_err(|failed| failed.error)?;
        self.queue.wait(&self.frame, &mut QueueWait::new(Context::Task), &deferred.posted)
    }

    /// Frees resources after the ITS refused some of their commands. If the ITS refused a DISCARD,
    /// the event was not mapped. If the ITS refused to unmap a table, the table is leaked because
    /// the ITS may still write to it.
    fn free_after_refusal(
        &self,
        refused: Option<Command>,
        state: &mut TaskState,
        resources: Resources,
    ) {
        let still_mapped = refused.is_some_and(|command| command.opcode() == Opcode::Mapd);
        match resources {
            Resources::Device { blocks, .. } if still_mapped => self.free_lpis(&blocks),
            // Only the first refused command is known, and the ITS may also have refused the later
            // MAPD. Posting the MAPD again does no harm.
            Resources::Device { unmap, itt, blocks } if !blocks.as_slice().is_empty() => {
                self.free_lpis(&blocks);
                self.release_device(state, unmap, itt, EventBlocks::None);
            }
            resources => self.free_resources(state, resources),
        }
    }

    fn free_resources(&self, state: &mut TaskState, resources: Resources) {
        match resources {
            Resources::Device { itt, blocks, .. } => {
                self.free_lpis(&blocks);
                self.platform().release_table(itt);
            }
            Resources::Events(blocks) => {
                self.free_lpis(&blocks);
                for block in blocks.as_slice() {
                    state.devices.free_events(block.device, block.first_event, block.count);
                }
                if let Some(block) = blocks.as_slice().first() {
                    self.drop_unused(state, block.device);
                }
            }
        }
    }

    pub(super) fn free_lpis(&self, blocks: &EventBlocks) {
        for block in blocks.as_slice() {
            let freed = self.lpis().free(block.range());
            debug_assert!(freed.is_ok(), "the LPIs were allocated with the events: {freed:?}");
        }
    }
}
