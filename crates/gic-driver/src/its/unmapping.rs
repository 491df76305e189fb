//! Unmapping: LPIs and tables are freed once the ITS has executed the commands that end their use.
//!
//! Events are discarded and devices unmapped before their LPIs and tables are reused. An ITS that
//! does not answer in time may still execute those commands, or earlier ones, later. So the
//! resources are kept: commands that found no room are posted before any other, and their resources
//! are freed once they are consumed. If the ITS never answers, they are never reused.

use super::command_queue::FailedRun;
use super::deferred_unmap::{DeferredUnmap, Resources};
use super::error::{ItsError, QueueError};
use super::queue_wait::{Context, QueueWait};
use super::sequences::{DiscardCommands, EventBlocks};
use super::{Its, TaskState};
use crate::platform::{GicPlatform, Table};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::its::{Command, Opcode, RdBase};

impl<P: GicPlatform> Its<P> {
    /// Discards the events of one device's blocks that have a route, and frees the blocks.
    pub(super) fn discard(&self, state: &mut TaskState, blocks: EventBlocks) {
        self.release_resources(state, Resources::Events(blocks));
    }

    /// Unmaps a device with its remaining events as one batch, and frees its table and their LPIs.
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
            // The resources leak: the ITS may still use them.
            _ => self.note(ItsError::NoMemory("commands that an ITS did not take")),
        }
    }

    /// Executes the commands that end the use of resources. Returns the commands that found no
    /// room.
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
        // A command for which there is no memory still ends its route.
        commands.for_each(drop);
        (result, rest)
    }

    /// Completes the deferred unmaps. Called before anything new is posted for a device.
    ///
    /// # Errors
    /// The ITS still does not go on.
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

    /// Frees resources whose commands were partly refused. An event whose DISCARD was refused was
    /// not mapped. A table whose unmapping was refused leaks, because the ITS may still write to
    /// it.
    fn free_after_refusal(
        &self,
        refused: Option<Command>,
        state: &mut TaskState,
        resources: Resources,
    ) {
        let still_mapped = refused.is_some_and(|command| command.opcode() == Opcode::Mapd);
        match resources {
            Resources::Device { blocks, .. } if still_mapped => self.free_lpis(&blocks),
            // Only the first refusal is known: the unmapping behind it may have been refused too.
            // It is sent again, which is harmless.
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
                    if let Some(known) = state.devices.get_mut(block.device) {
                        known.free_events(block.first_event, block.count);
                    }
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
