//! Freed vectors whose messages the host hasn't deleted yet, or may still grant.
//!
//! Invariant: a vector stays in the queue until the host can no longer send its message, i.e. until
//! the host has confirmed the deletion, has answered the abandoned requests for the message, listed
//! the bus without the function, or lost its channel.

use super::function_table::FunctionId;
use crate::protocol::{Request, Slot, TranslatedInterrupt};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use msi_types::HwIrqBlock;

/// Progress of a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// The request has not been sent yet.
    Queued,
    /// The request was sent.
    Sent,
    /// The request was sent, and its task has stopped waiting.
    GivenUp,
    /// The host answered but did not confirm. The request is not repeated.
    Refused,
    /// There is no message to delete, but the host may still grant one that was requested before.
    Ungranted,
}

/// A freed block of vectors and its message.
#[derive(Debug)]
pub(super) struct FreedBlock {
    /// Cookie of the attachment that allocated the block.
    pub(super) cookie: u32,
    pub(super) block: HwIrqBlock,
    pub(super) function: FunctionId,
    /// `None` if the host has granted no message.
    pub(super) interrupt: Option<TranslatedInterrupt>,
}

/// The deletion of a freed block's message.
#[derive(Debug)]
pub(super) struct Deletion {
    /// The request's transaction ID.
    pub(super) id: u64,
    pub(super) progress: Progress,
    pub(super) freed: FreedBlock,
}

impl Deletion {
    pub(super) fn request(&self) -> Option<Request> {
        let FreedBlock { function, interrupt, .. } = self.freed;
        let slot = function.slot;
        interrupt.map(|interrupt| Request::DeleteInterrupt { slot, interrupt })
    }
}

/// Deletions, in the order in which the vectors were freed. There is room for all of the bus's
/// vectors, so freeing a vector cannot fail.
#[derive(Debug)]
pub(super) struct DeletionQueue(Vec<Deletion>);

impl DeletionQueue {
    pub(super) fn new(vectors: u16) -> Result<Self, TryReserveError> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(vectors.into())?;
        Ok(Self(entries))
    }

    /// Returns the number of vectors in the queue.
    pub(super) fn vectors(&self) -> u16 {
        self.0
            .iter()
            .fold(0, |sum, deletion| sum.saturating_add(deletion.freed.block.count().get()))
    }

    /// Appends a deletion. The caller must already have removed the block's vectors from the
    /// interrupt table, so that the reserved capacity suffices.
    pub(super) fn push(&mut self, id: u64, freed: FreedBlock) {
        let progress =
            if freed.interrupt.is_some() { Progress::Queued } else { Progress::Ungranted };
        self.0.push(Deletion { id, progress, freed });
    }

    /// Returns the transaction ID and the request of the first deletion that has not been sent.
    pub(super) fn next_queued(&self) -> Option<(u64, Request)> {
        let mut queued = self.0.iter().filter(|deletion| deletion.progress == Progress::Queued);
        queued.find_map(|deletion| Some((deletion.id, deletion.request()?)))
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Deletion> {
        self.0.iter_mut().find(|deletion| deletion.id == id)
    }

    /// Removes and returns the first matching deletion.
    pub(super) fn take(&mut self, matches: impl Fn(&Deletion) -> bool) -> Option<Deletion> {
        let index = self.0.iter().position(matches)?;
        Some(self.0.remove(index))
    }

    /// Returns `true` if a deletion for the function in this slot is unsent, or if its task is
    /// still waiting for the answer.
    pub(super) fn is_pending(&self, slot: Slot) -> bool {
        let mut of_function = self.0.iter().filter(|deletion| deletion.freed.function.slot == slot);
        of_function.any(|deletion| matches!(deletion.progress, Progress::Queued | Progress::Sent))
    }
}
