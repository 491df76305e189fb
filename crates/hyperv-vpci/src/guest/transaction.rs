//! Requests that were sent, and their answers.

use super::function_table::FunctionId;
use msi_types::HwIrq;

/// Number of bytes of an answer that we keep. No parser reads more.
const MAX_ANSWER: usize = 32;

/// The first bytes of a completion's payload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Completion {
    bytes: [u8; MAX_ANSWER],
    length: usize,
}

impl Completion {
    pub(super) fn new(payload: &[u8]) -> Self {
        let mut bytes = [0; MAX_ANSWER];
        bytes.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
        Self { bytes, length: payload.len().min(MAX_ANSWER) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: u64,
    pub(super) state: State,
}

#[derive(PartialEq, Debug)]
pub(super) enum State {
    Waiting,
    Done(Completion),
    /// The request for the message of the vectors from this one on was abandoned. If its answer
    /// grants a message, the message is returned to the host.
    Late(FunctionId, HwIrq),
    /// The request is for a deletion in the queue of deletions.
    Deletion,
}
