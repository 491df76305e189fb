//! Interrupts, with their targets and the messages that the host granted, and the queue of freed
//! vectors whose messages the host hasn't deleted yet, or may still grant.
//!
//! Invariant: a vector stays in the queue until the host can no longer send its message, i.e. until
//! the host has confirmed the deletion, has answered the abandoned requests for the message, listed
//! the bus without the function, or lost its channel.

use super::function_table::FunctionId;
use super::vectors::VectorTarget;
use crate::protocol::{Request, Slot, TranslatedInterrupt};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::SortedMap;
use msi_types::{Fit, HwIrq, HwIrqBlock};

/// State of the host's message for a group or single vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// No message was requested yet.
    None,
    /// A request is in progress.
    Asked,
    /// The host granted this message.
    Known(TranslatedInterrupt),
    /// The host granted this message, but the bus has since been suspended.
    Lost,
}

/// An allocated vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupt {
    pub(super) function: FunctionId,
    /// First vector in the group. An independent vector is its own group.
    pub(super) first: HwIrq,
    pub(super) count: u16,
    pub(super) fit: Fit,
    pub(super) target: VectorTarget,
    /// The old target, while the vector is being moved.
    pub(super) previous: Option<VectorTarget>,
    /// `true` if the hypervisor refused the target on the last unmask.
    pub(super) unmask_was_refused: bool,
    /// The group's message. Only the entry of the group's first vector uses this field.
    pub(super) answer: Answer,
}

/// All vectors on a bus, in ascending order. The table's capacity is allocated once, so no
/// operation has to allocate while interrupts are masked.
#[derive(Debug)]
pub(super) struct InterruptTable {
    entries: SortedMap<HwIrq, Interrupt>,
    limit: usize,
}

impl InterruptTable {
    pub(super) fn new(limit: u16) -> Result<Self, TryReserveError> {
        let limit = usize::from(limit);
        let mut entries = SortedMap::new();
        entries.reserve_many(limit)?;
        Ok(Self { entries, limit })
    }

    /// Returns the first allocated vector after `after`. With `None`, returns the table's first
    /// vector.
    pub(super) fn next_after(&self, after: Option<HwIrq>) -> Option<HwIrq> {
        let mut vectors = self.entries.iter().map(|(hwirq, _)| hwirq);
        vectors.find(|hwirq| after.is_none_or(|after| *hwirq > after))
    }

    /// Marks the host's messages as lost. The caller must request messages for the same vectors
    /// again.
    pub(super) fn lose_messages(&mut self) {
        for (_, interrupt) in self.entries.iter_mut_from(HwIrq::new(0)) {
            if let Answer::Known(_) = interrupt.answer {
                interrupt.answer = Answer::Lost;
            }
        }
    }

    /// Forgets the host's messages for functions that were removed. Their data may since identify a
    /// successor's message.
    pub(super) fn forget_messages(&mut self, is_gone: impl Fn(FunctionId) -> bool) {
        for (_, interrupt) in self.entries.iter_mut_from(HwIrq::new(0)) {
            if matches!(interrupt.answer, Answer::Known(_)) && is_gone(interrupt.function) {
                interrupt.answer = Answer::None;
            }
        }
    }

    /// Returns the first vector after `after` whose message was lost. With `None`, starts at the
    /// beginning of the table.
    pub(super) fn next_lost(&self, after: Option<HwIrq>) -> Option<(HwIrq, Interrupt)> {
        let mut lost = self.entries.iter().filter(|(_, of)| of.answer == Answer::Lost);
        let found = lost.find(|(hwirq, _)| after.is_none_or(|after| *hwirq > after));
        found.map(|(hwirq, interrupt)| (hwirq, *interrupt))
    }

    /// Returns `true` if the table has room for `count` more vectors.
    pub(super) fn has_room(&self, count: u16) -> bool {
        self.entries.len() + usize::from(count) <= self.limit
    }

    /// Adds a vector. The caller must have checked that the table has room.
    pub(super) fn insert(&mut self, hwirq: HwIrq, interrupt: Interrupt) {
        if self.has_room(1) && !self.entries.contains(hwirq) {
            self.entries.insert(hwirq, interrupt);
        }
    }

    pub(super) fn remove(&mut self, hwirq: HwIrq) -> Option<Interrupt> {
        self.entries.remove(hwirq)
    }

    pub(super) fn get(&self, hwirq: HwIrq) -> Option<&Interrupt> {
        self.entries.get(hwirq)
    }

    pub(super) fn get_mut(&mut self, hwirq: HwIrq) -> Option<&mut Interrupt> {
        self.entries.get_mut(hwirq)
    }

    /// Returns the host's message for a vector. For a vector in a group, this is the group's
    /// message with the vector's index in the low bits of the data, as the function sends it.
    pub(super) fn message(&self, hwirq: HwIrq) -> Option<TranslatedInterrupt> {
        let interrupt = self.get(hwirq)?;
        let Answer::Known(answer) = self.get(interrupt.first)?.answer else { return None };
        let offset = hwirq.get().checked_sub(interrupt.first.get())?;
        let mut message = answer.message;
        message.data = message.data.checked_add(offset)?;
        Some(TranslatedInterrupt { message, ..answer })
    }

    /// Returns `true` if one of the function's interrupts already has a message in this answer.
    pub(super) fn is_taken(&self, function: FunctionId, answer: &TranslatedInterrupt) -> bool {
        let end =
            |answer: &TranslatedInterrupt| u64::from(answer.message.data) + u64::from(answer.count);
        self.entries.values().any(|interrupt| {
            let Answer::Known(other) = interrupt.answer else { return false };
            interrupt.function == function
                && other.message.address == answer.message.address
                && u64::from(other.message.data) < end(answer)
                && u64::from(answer.message.data) < end(&other)
        })
    }
}

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
