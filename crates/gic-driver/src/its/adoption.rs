//! Redistributors whose LPI tables were taken over. What is pending there for a previous kernel is
//! cleared before the first owner of an LPI gets it.

use super::error::{ItsError, QueueError, fault};
use super::events::invalidation;
use super::queue_wait::Context;
use super::sequences::EventBlock;
use super::{Its, TaskState};
use crate::platform::GicPlatform;
use gic_arch::its::{CollectionId, Command, RdBase};
use msi_types::Initially;

impl<P: GicPlatform> Its<P> {
    /// Finds the collections of all redistributors at which a new block's LPIs must be cleared.
    /// There are none if nothing was taken over, or if they had owners before.
    ///
    /// # Errors
    /// One of the redistributors is no target of this ITS.
    pub(super) fn find_stale(
        &self,
        state: &mut TaskState,
        block: EventBlock,
    ) -> Result<(), ItsError> {
        state.to_clear.clear();
        if self.lpis().are_clear(&block.range()) {
            return Ok(());
        }
        for at in (0..).map_while(|index| self.lpis().stale_at(index)) {
            let target = self.rd_base_of(at.address, at.processor_number);
            let reason = "a redistributor that has LPIs of a previous kernel pending is no target \
                of this ITS";
            let collection = self.collections.of_target(target);
            // The room was reserved for all collections.
            state.to_clear.push(collection.ok_or(fault(self.frame.base, "CLEAR", reason))?);
        }
        Ok(())
    }

    /// After a block was mapped and its LPIs were cleared: enables them, which must not happen
    /// before.
    pub(super) fn finish_clearing(
        &self,
        state: &TaskState,
        block: EventBlock,
        initially: Initially,
        (collection, target): (CollectionId, RdBase),
    ) -> Result<(), QueueError> {
        if state.to_clear.is_empty() {
            return Ok(());
        }
        self.lpis().note_cleared(&block.range());
        if initially == Initially::Masked {
            return Ok(());
        }
        self.enable_all(block);
        let mut commands = [invalidation(block, collection), Command::Sync { target }].into_iter();
        self.queue.run(&self.frame, Context::Task, &mut commands).map_err(|failed| failed.error)
    }
}
