//! The link to the host: requests that wait for answers, notices, and attached devices.
//!
//! A transaction ID is used once. So an answer that comes twice, or to nobody, is known as such,
//! and a late one finds what has to be done about it.

use super::functions::Functions;
use super::vectors::Vectors;
use super::{VpciError, devices::Devices};
use crate::channel::{Channel, ChannelError, Idle, PacketKind};
use crate::protocol::reply::InterruptReply;
use crate::protocol::{MAX_MESSAGE, Notice, ProtocolError, Request, Slot};
use alloc::boxed::Box;
use alloc::vec::Vec;
use msi_types::HwIrqBlock;

/// Greatest number of requests without an answer, as under Linux.
const MAX_UNANSWERED: usize = 64;

/// Packets that one look takes: a host that never stops sending does not hold a task up.
const BUDGET: usize = 256;

/// Longest request of a guest: an assignment of resources without interrupts.
const MAX_REQUEST: usize = 160;

/// Longest part of an answer that anything is read of.
const MAX_ANSWER: usize = 32;

/// Faults of the host, counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// Messages that are malformed or unknown.
    pub malformed: u32,
    /// Answers to nobody, or a second time, and notices about functions that are not there.
    pub unexpected: u32,
    /// Answers that came after their request was given up.
    pub late: u32,
}

/// The begin of a completion's payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    bytes: [u8; MAX_ANSWER],
    length: usize,
}

impl Completion {
    fn new(payload: &[u8]) -> Self {
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
struct Transaction {
    id: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Done(Completion),
    Late(Late),
}

/// The action for an answer that comes after its request was given up.
#[derive(Debug)]
pub(super) enum Late {
    /// Nothing.
    Forget,
    /// The message that it brings goes back to the host.
    DeleteInterrupt(Slot, u32),
    /// The vectors may be used again: the host has forgotten their message.
    Release(u32, HwIrqBlock),
}

/// The link to the host.
pub(super) struct Link {
    channel: Box<dyn Channel>,
    transactions: Vec<Transaction>,
    /// Messages that go back to the host once there is room.
    unsent: Vec<Request>,
    next_id: u64,
    /// The reason for which nothing more is exchanged.
    end: Option<VpciError>,
    buffer: Vec<u8>,
    faults: Faults,
    pub(super) functions: Functions,
    pub(super) devices: Devices,
    pub(super) has_relations: bool,
    /// State of the channel after the last look: asleep only if the next packet raises a signal.
    pub(super) idle: Idle,
}

impl Link {
    pub(super) fn new(channel: Box<dyn Channel>) -> Result<Self, VpciError> {
        let no_memory = |_| VpciError::NoMemory;
        let (mut transactions, mut unsent) = (Vec::new(), Vec::new());
        transactions.try_reserve_exact(MAX_UNANSWERED).map_err(no_memory)?;
        unsent.try_reserve_exact(MAX_UNANSWERED).map_err(no_memory)?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(MAX_MESSAGE).map_err(no_memory)?;
        buffer.resize(MAX_MESSAGE, 0);
        Ok(Self {
            channel,
            transactions,
            unsent,
            next_id: 1,
            end: None,
            buffer,
            faults: Faults::default(),
            functions: Functions::new().map_err(no_memory)?,
            devices: Devices::default(),
            has_relations: false,
            idle: Idle::Busy,
        })
    }

    /// Sends a request that wants an answer, and returns its number; `None` if there is no room
    /// yet.
    pub(super) fn begin(
        &mut self,
        operation: &'static str,
        request: &Request,
    ) -> Result<Option<u64>, VpciError> {
        if self.transactions.len() + self.unsent.len() >= MAX_UNANSWERED {
            return Err(VpciError::TooManyUnanswered(operation));
        }
        let id = self.next_id;
        if !self.send(operation, PacketKind::Request(id), request)? {
            return Ok(None);
        }
        self.next_id += 1;
        self.transactions.push(Transaction { id, state: State::Waiting });
        Ok(Some(id))
    }

    /// Sends a message that wants no answer. Returns false if there is no room yet.
    pub(super) fn notify(
        &mut self,
        operation: &'static str,
        request: &Request,
    ) -> Result<bool, VpciError> {
        self.send(operation, PacketKind::Notice, request)
    }

    fn send(
        &mut self,
        operation: &'static str,
        kind: PacketKind,
        request: &Request,
    ) -> Result<bool, VpciError> {
        if let Some(end) = self.end {
            return Err(end);
        }
        let mut message = [0; MAX_REQUEST];
        let malformed = |error| VpciError::Protocol { operation, error };
        let length = request.emit(&mut message).map_err(malformed)?;
        match self.channel.send(kind, message.get(..length).unwrap_or_default()) {
            Ok(()) => Ok(true),
            Err(ChannelError::Full) => Ok(false),
            Err(error) => Err(VpciError::Channel { operation, error }),
        }
    }

    /// The answer to a request, if it came.
    pub(super) fn take(&mut self, id: u64) -> Result<Option<Completion>, VpciError> {
        let found = self.transactions.iter().position(|transaction| transaction.id == id);
        let Some(index) = found else { return Ok(None) };
        if let Some(Transaction { state: State::Done(completion), .. }) =
            self.transactions.get(index)
        {
            let completion = *completion;
            self.transactions.swap_remove(index);
            return Ok(Some(completion));
        }
        match self.end {
            Some(end) => {
                self.transactions.swap_remove(index);
                Err(end)
            }
            None => Ok(None),
        }
    }

    /// Gives a request up: its answer is treated as `late` says, at once if it came
    /// meanwhile.
    pub(super) fn abandon(&mut self, id: u64, late: Late, vectors: &Vectors) {
        let found = self.transactions.iter().position(|transaction| transaction.id == id);
        let Some(index) = found else { return };
        match self.transactions.swap_remove(index).state {
            State::Done(completion) => self.settle(late, completion.bytes(), vectors),
            // Another takes its place, so that there is room.
            State::Waiting | State::Late(_) => {
                self.transactions.push(Transaction { id, state: State::Late(late) });
            }
        }
    }

    /// Handles received packets until none is left and the channel is re-armed, or until the
    /// budget is used up. Context: task; may sleep.
    pub(super) fn poll(&mut self, vectors: &Vectors) {
        self.idle = Idle::Busy;
        let mut buffer = core::mem::take(&mut self.buffer);
        for _ in 0..BUDGET {
            if self.end.is_some() {
                self.idle = Idle::Sleep;
            }
            if self.idle == Idle::Sleep {
                break;
            }
            match self.channel.receive(&mut buffer) {
                Ok(Some(received)) => {
                    let payload = buffer.get(..received.length).unwrap_or_default();
                    self.dispatch(received.kind, payload, vectors);
                }
                // A packet that arrived before the channel was re-armed raised no signal.
                Ok(None) => match self.channel.idle() {
                    Ok(idle) => self.idle = idle,
                    Err(error) => self.fail(error),
                },
                Err(error) => self.fail(error),
            }
        }
        self.buffer = buffer;
        self.send_unsent();
    }

    const fn fail(&mut self, error: ChannelError) {
        self.end = Some(VpciError::Channel { operation: "receive", error });
    }

    fn dispatch(&mut self, kind: PacketKind, payload: &[u8], vectors: &Vectors) {
        match kind {
            PacketKind::Completion(id) => self.complete(id, payload, vectors),
            PacketKind::Notice | PacketKind::Request(_) => {
                if self.notice(payload).is_err() {
                    self.faults.malformed = self.faults.malformed.saturating_add(1);
                }
            }
        }
    }

    fn notice(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        match Notice::parse(payload)? {
            Notice::Relations(relations) => {
                self.functions.update(&relations);
                self.has_relations = true;
            }
            Notice::Eject(slot) => {
                if !self.functions.eject(slot) {
                    self.unexpected();
                }
            }
            // The list tells of what changed.
            Notice::InvalidateDevice(_) | Notice::InvalidateBus => {
                if !self.unsent.contains(&Request::QueryRelations) {
                    self.send_later(Request::QueryRelations);
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, id: u64, payload: &[u8], vectors: &Vectors) {
        let found = self.transactions.iter().position(|transaction| transaction.id == id);
        let Some(index) = found else { return self.unexpected() };
        match self.transactions.get_mut(index).map(|transaction| &mut transaction.state) {
            Some(state @ State::Waiting) => *state = State::Done(Completion::new(payload)),
            Some(State::Late(_)) => {
                if let State::Late(late) = self.transactions.swap_remove(index).state {
                    self.faults.late = self.faults.late.saturating_add(1);
                    self.settle(late, payload, vectors);
                }
            }
            Some(State::Done(_)) | None => self.unexpected(),
        }
    }

    fn settle(&mut self, late: Late, payload: &[u8], vectors: &Vectors) {
        match late {
            Late::Forget => {}
            Late::Release(device, block) => self.devices.release(vectors, device, block),
            Late::DeleteInterrupt(slot, epoch) => match InterruptReply::parse(payload) {
                // The place of its transaction is free now.
                Ok(Ok(InterruptReply(interrupt))) if self.functions.is_present(slot, epoch) => {
                    self.send_later(Request::DeleteInterrupt { slot, interrupt });
                }
                Ok(_) => {}
                Err(_) => self.faults.malformed = self.faults.malformed.saturating_add(1),
            },
        }
    }

    /// Sends a message that wants no answer once there is room. Dropped if there are too many: a
    /// host that takes nothing gets nothing.
    pub(super) fn send_later(&mut self, request: Request) {
        if self.unsent.len() + self.transactions.len() < MAX_UNANSWERED {
            self.unsent.push(request);
        }
    }

    /// Sends what is unsent, as far as there is room.
    fn send_unsent(&mut self) {
        while let Some(request) = self.unsent.first().copied() {
            match self.notify("settle", &request) {
                Ok(true) => {
                    self.unsent.remove(0);
                }
                Ok(false) => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// Nothing more is exchanged. Vectors that waited for the host's confirmation are free: the
    /// bus is off.
    pub(super) fn close(&mut self, vectors: &Vectors) {
        self.end = Some(VpciError::Closed);
        self.unsent.clear();
        let mut index = 0;
        while let Some(transaction) = self.transactions.get(index) {
            // Others' tasks still ask for them.
            if !matches!(transaction.state, State::Late(_)) {
                index += 1;
                continue;
            }
            if let State::Late(Late::Release(device, block)) =
                self.transactions.swap_remove(index).state
            {
                self.devices.release(vectors, device, block);
            }
        }
    }

    pub(super) const fn end(&self) -> Option<VpciError> {
        self.end
    }

    pub(super) const fn faults(&self) -> Faults {
        self.faults
    }

    fn unexpected(&mut self) {
        self.faults.unexpected = self.faults.unexpected.saturating_add(1);
    }
}
