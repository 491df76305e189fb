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
    DeferredUnmap, Device, DiscardCommands, EventBlock, EventBlocks, EventQuota, Mapping,
    Resources, max_events,
};
use super::error::{ItsError, QueueError};
use super::tables::{Context, QueueWait};
use super::{Its, TaskState};
use crate::platform::{GicPlatform, Table};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::its::{Command, MapAction, Opcode, RdBase};
use msi_types::{Attachment, DeviceId};

impl TaskState {
    /// Removes a quota and these blocks of it, and unmaps the device if no other quota has events.
    pub(super) fn detach<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        attachment: &Attachment,
        blocks: Vec<EventBlock>,
    ) {
        if let Err(error) = self.finish_deferred_unmaps(its) {
            its.note(error);
        }
        if let Some(quota) = self.devices.remove_quota(attachment) {
            self.detach_quota(its, &quota, EventBlocks::Many(blocks));
        }
    }

    /// Removes a quota and its blocks, and unmaps the device if no other quota has events.
    fn detach_quota<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        quota: &EventQuota,
        blocks: EventBlocks,
    ) {
        let Some(known) = self.devices.attached.get_mut(quota.device) else { return };
        known.remove_quota(quota);
        let events: u32 = blocks.as_slice().iter().map(|block| u32::from(block.count.get())).sum();
        if known.users == 0 && known.allocated_events() == events {
            if let Some(device) = self.devices.attached.remove(quota.device) {
                self.unmap_device(its, quota.device, device, blocks);
            }
        } else if !blocks.as_slice().is_empty() {
            self.discard(its, blocks);
        }
    }

    /// Unmaps a device that has neither quotas nor events.
    fn drop_unused<P: GicPlatform>(&mut self, its: &Its<P>, id: DeviceId) {
        if let Some(device) = self.devices.remove_unused(id) {
            self.unmap_device(its, id, device, EventBlocks::None);
        }
    }

    /// Unmaps a device whose only remaining events are those in `blocks`.
    fn unmap_device<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        id: DeviceId,
        device: Device,
        blocks: EventBlocks,
    ) {
        match device.mapping {
            // MAPD is posted with a device's first block, so no block of this device was ever
            // mapped.
            Mapping::Unmapped => its.platform().release_table(device.itt),
            Mapping::Mapped => {
                let unmap = device.mapd(id, MapAction::Unmap);
                self.release_device(its, unmap, device.itt, blocks);
            }
        }
    }

    /// Adds a quota to a device, which is created if it does not exist yet.
    pub(super) fn attach_device<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        id: DeviceId,
        max: u32,
        room: u32,
    ) -> Result<(), ItsError> {
        let room = room.min(max_events(its.typer));
        let mut wanted = max.max(room);
        if let Some(known) = self.devices.attached.get_mut(id) {
            if known.add_quota(max) {
                return Ok(());
            }
            if !known.is_idle() {
                return Err(ItsError::AttachedForFewer(id));
            }
            wanted = known.reserved().saturating_add(max).max(room);
        }
        let mut device = Device::provision(its.platform(), its.typer, wanted, its.constraints)?;
        if let Some(old) = self.devices.attached.remove(id) {
            device.inherit(&old);
            self.unmap_device(its, id, old, EventBlocks::None);
        }
        let added = device.add_quota(max);
        debug_assert!(added, "the table was allocated with room for the quota");
        self.devices.attached.insert(id, device);
        Ok(())
    }

    /// Discards all events in a device's blocks that have a route, and frees the blocks.
    pub(super) fn discard<P: GicPlatform>(&mut self, its: &Its<P>, blocks: EventBlocks) {
        self.release_resources(its, Resources::Events(blocks));
    }

    /// Unmaps a device with its remaining events as one batch, and frees the device's table and the
    /// events' LPIs.
    pub(super) fn release_device<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        unmap: Command,
        itt: Table,
        blocks: EventBlocks,
    ) {
        self.release_resources(its, Resources::Device { unmap, itt, blocks });
    }

    /// Executes the commands that end the use of resources, then frees them.
    fn release_resources<P: GicPlatform>(&mut self, its: &Its<P>, resources: Resources) {
        let (result, rest) = run_unmap(its, &mut self.targets, &resources);
        let Err(FailedRun { error, span }) = result else {
            return self.free_resources(its, resources);
        };
        its.note(error.at(its.frame.base));
        if let QueueError::Stalled(refused) = error {
            return self.free_after_refusal(its, refused, resources);
        }
        match rest {
            Ok(rest) if span.is_empty() && rest.is_empty() => self.free_resources(its, resources),
            Ok(rest) if self.deferred_unmaps.try_reserve(1).is_ok() => {
                self.deferred_unmaps.push_back(DeferredUnmap {
                    posted: span,
                    rest: rest.into(),
                    resources,
                });
            }
            // Leak the resources, because the ITS may still be using them.
            _ => its.note(ItsError::NoMemory("commands that the ITS has not executed")),
        }
    }

    /// Completes the deferred unmaps. Must be called before new commands are posted for a device.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the ITS still does not respond, or is suspended.
    pub(super) fn finish_deferred_unmaps<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
    ) -> Result<(), ItsError> {
        while let Some(mut deferred) = self.deferred_unmaps.pop_front() {
            match finish(its, &mut deferred) {
                Ok(()) => self.free_resources(its, deferred.resources),
                Err(QueueError::Stalled(refused)) => {
                    self.free_after_refusal(its, refused, deferred.resources);
                }
                Err(error @ (QueueError::Timeout(_) | QueueError::Stopped)) => {
                    self.deferred_unmaps.push_front(deferred);
                    return Err(error.at(its.frame.base));
                }
            }
        }
        Ok(())
    }

    /// Frees resources after the ITS refused some of their commands. If the ITS refused a DISCARD,
    /// the event was not mapped. If the ITS refused to unmap a table, the table is leaked because
    /// the ITS may still write to it.
    fn free_after_refusal<P: GicPlatform>(
        &mut self,
        its: &Its<P>,
        refused: Option<Command>,
        resources: Resources,
    ) {
        let still_mapped = refused.is_some_and(|command| command.opcode() == Opcode::Mapd);
        match resources {
            Resources::Device { blocks, .. } if still_mapped => free_lpis(its, &blocks),
            // Only the first refused command is known, and the ITS may also have refused the later
            // MAPD. Posting the MAPD again does no harm.
            Resources::Device { unmap, itt, blocks } if !blocks.as_slice().is_empty() => {
                free_lpis(its, &blocks);
                self.release_device(its, unmap, itt, EventBlocks::None);
            }
            resources => self.free_resources(its, resources),
        }
    }

    fn free_resources<P: GicPlatform>(&mut self, its: &Its<P>, resources: Resources) {
        match resources {
            Resources::Device { itt, blocks, .. } => {
                free_lpis(its, &blocks);
                its.platform().release_table(itt);
            }
            Resources::Events(blocks) => {
                free_lpis(its, &blocks);
                for block in blocks.as_slice() {
                    self.devices.free_events(block.device, block.first_event, block.count);
                }
                if let Some(block) = blocks.as_slice().first() {
                    self.drop_unused(its, block.device);
                }
            }
        }
    }
}

/// Executes the commands that end the use of resources. Also returns the commands for which the
/// queue had no room.
fn run_unmap<P: GicPlatform>(
    its: &Its<P>,
    targets: &mut Vec<RdBase>,
    resources: &Resources,
) -> (Result<(), FailedRun>, Result<Vec<Command>, TryReserveError>) {
    targets.clear();
    let blocks = resources.blocks().as_slice();
    let mut commands =
        DiscardCommands::new(&its.routes, &its.collections, blocks, resources.unmap(), targets);
    let result = its.queue.run(&its.frame, Context::Task, &mut commands);
    let rest = try_collect(&mut commands);
    // Draw the remaining commands from the iterator even if they can't be stored, because
    // drawing a DISCARD removes the event's route.
    commands.for_each(drop);
    (result, rest)
}

fn finish<P: GicPlatform>(its: &Its<P>, deferred: &mut DeferredUnmap) -> Result<(), QueueError> {
    let mut rest = core::iter::from_fn(|| deferred.rest.pop_front());
    let posted = its.queue.run(&its.frame, Context::Task, &mut rest);
    if let Err(FailedRun { span, .. }) = &posted {
        deferred.posted.extend(span);
    }
    posted.map_err(|failed| failed.error)?;
    its.queue.wait(&its.frame, &mut QueueWait::new(Context::Task), &deferred.posted)
}

pub(super) fn free_lpis<P: GicPlatform>(its: &Its<P>, blocks: &EventBlocks) {
    for block in blocks.as_slice() {
        let freed = its.lpis().free(block.range());
        debug_assert!(freed.is_ok(), "the LPIs were allocated with the events: {freed:?}");
    }
}
