//! The link to the host: unanswered requests, notices and attached devices.
//!
//! Transaction IDs are never reused. This lets the link recognize duplicate and unsolicited
//! answers, and decide what to do with a late one.

use super::deletion_queue::{Deletion, DeletionQueue, FreedBlock, Progress};
use super::function_table::{FunctionTable, slots};
use super::vectors::Vectors;
use super::{VpciError, device_table::DeviceTable};
use crate::channel::{Channel, ChannelError, Idle, PacketKind};
use crate::protocol::reply::{InterruptReply, Status};
use crate::protocol::{MAX_MESSAGE, Notice, ProtocolError, Request, Slot};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Maximum number of unanswered requests (the same as in Linux).
const MAX_UNANSWERED: usize = 64;

/// Maximum number of packets per poll. Without a limit, a host that never stops sending could
/// occupy a task indefinitely.
const BUDGET: usize = 256;

/// Length in bytes of the guest's longest request: a resource assignment with room for one
/// interrupt.
const MAX_REQUEST: usize = 216;

/// Number of bytes of an answer that we keep. No parser reads more.
const MAX_ANSWER: usize = 32;

/// Counters of faults by the host and the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// Messages that are malformed or unknown.
    pub malformed: u32,
    /// Answers to unknown, abandoned or already answered requests, and notices about nonexistent
    /// functions.
    pub unexpected: u32,
    /// Late answers to abandoned message requests. If such an answer grants a message, it is
    /// returned to the host.
    pub late: u32,
    /// Packets of unknown types or with unknown flags, which were skipped.
    pub skipped: u32,
    /// Unmasks on x86 for which the hypervisor refused the hypercall. The vectors were unmasked
    /// with their previous targets.
    pub refused_unmasks: u32,
}

/// The first bytes of a completion's payload.
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
    /// The request was abandoned. If its answer grants a message, the message is returned to the
    /// host.
    Late(LateMessage),
    /// The request is for a deletion in the [`DeletionQueue`].
    Deletion,
}

/// A message whose request was abandoned.
#[derive(Clone, Copy, Debug)]
pub(super) struct LateMessage {
    pub(super) slot: Slot,
    pub(super) epoch: u32,
}

/// State of the link.
pub(super) struct Link {
    /// `None` once the bus is closed.
    channel: Option<Box<dyn Channel>>,
    transactions: Vec<Transaction>,
    /// Messages to send to the host once the channel has room.
    unsent: Vec<Request>,
    pub(super) deletions: DeletionQueue,
    next_id: u64,
    /// Reason why the exchange has ended, or `None` while it is in progress.
    end: Option<VpciError>,
    /// `true` once the channel was rescinded or closed. The host's functions have then stopped
    /// sending interrupts.
    host_is_gone: bool,
    /// `true` if the channel had no room for the last message.
    is_full: bool,
    /// `true` if anything that other tasks may wait for has happened since the last
    /// [`take_news`](Self::take_news).
    has_news: bool,
    /// Number of waiting tasks.
    pub(super) waiting: u32,
    buffer: Vec<u8>,
    faults: Faults,
    pub(super) functions: FunctionTable,
    pub(super) devices: DeviceTable,
    pub(super) has_relations: bool,
    /// Result of the last poll, which is [`Idle::Sleep`] only if the next packet raises a signal.
    pub(super) idle: Idle,
}

impl Link {
    /// Creates a link with room for the deletions of `vectors` vectors.
    pub(super) fn new(channel: Box<dyn Channel>, vectors: u16) -> Result<Self, VpciError> {
        let no_memory = |_| VpciError::NoMemory;
        let (mut transactions, mut unsent) = (Vec::new(), Vec::new());
        // Reserve one more entry for the request that turns the bus off.
        transactions.try_reserve_exact(MAX_UNANSWERED + 1).map_err(no_memory)?;
        unsent.try_reserve_exact(MAX_UNANSWERED).map_err(no_memory)?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(MAX_MESSAGE).map_err(no_memory)?;
        buffer.resize(MAX_MESSAGE, 0);
        Ok(Self {
            channel: Some(channel),
            transactions,
            unsent,
            deletions: DeletionQueue::new(vectors).map_err(no_memory)?,
            next_id: 1,
            end: None,
            host_is_gone: false,
            is_full: false,
            has_news: false,
            waiting: 0,
            buffer,
            faults: Faults::default(),
            functions: FunctionTable::new().map_err(no_memory)?,
            devices: DeviceTable::default(),
            has_relations: false,
            idle: Idle::Busy,
        })
    }

    /// Sends a request that needs an answer, and returns its transaction ID. Returns `None` if the
    /// channel has no room yet.
    pub(super) fn begin(
        &mut self,
        operation: &'static str,
        request: &Request,
    ) -> Result<Option<u64>, VpciError> {
        // A deletion that is waiting for room must be sent first.
        let has_room = self.flush();
        if !self.has_place() && *request != Request::D0Exit {
            return Err(VpciError::TooManyUnanswered(operation));
        }
        let id = self.next_id;
        if !has_room || !self.send(operation, PacketKind::Request(id), request)? {
            return Ok(None);
        }
        self.next_id += 1;
        self.transactions.push(Transaction { id, state: State::Waiting });
        Ok(Some(id))
    }

    /// Returns `true` if we can track one more request.
    fn has_place(&self) -> bool {
        self.transactions.len() + self.unsent.len() < MAX_UNANSWERED
    }

    /// Sends a message that needs no answer. Returns `false` if the channel has no room yet.
    pub(super) fn notify(
        &mut self,
        operation: &'static str,
        request: &Request,
    ) -> Result<bool, VpciError> {
        Ok(self.flush() && self.send(operation, PacketKind::Notice, request)?)
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
        let channel = self.channel.as_mut().ok_or(VpciError::Closed)?;
        match channel.send(kind, message.get(..length).unwrap_or_default()) {
            Ok(()) => {
                // The channel no longer signals room for a message that it refused from another
                // task, so wake that task and let it try again.
                self.has_news |= core::mem::take(&mut self.is_full);
                Ok(true)
            }
            Err(ChannelError::Full) => {
                self.is_full = true;
                Ok(false)
            }
            Err(error) => Err(VpciError::Channel { operation, error }),
        }
    }

    /// Asks the host to delete the message of freed vectors. The vectors are released once the host
    /// can no longer send this message. If the host must confirm, returns the deletion's
    /// transaction ID.
    pub(super) fn delete(&mut self, vectors: &Vectors, freed: FreedBlock) -> Option<u64> {
        if self.host_is_gone || !self.functions.is_present(freed.slot, freed.epoch) {
            self.devices.release(vectors, freed.cookie, freed.block);
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.deletions.push(id, freed);
        self.flush();
        Some(id)
    }

    /// Returns `true` if the caller must stop waiting: either the host has answered the deletion,
    /// or we can't track its request.
    pub(super) fn is_settled(&mut self, id: u64) -> bool {
        let has_place = self.has_place();
        self.deletions.get_mut(id).is_none_or(|deletion| match deletion.progress {
            Progress::Queued => !has_place,
            Progress::Sent | Progress::GivenUp => false,
            Progress::Refused => true,
        })
    }

    /// Records that a deletion's task has stopped waiting.
    pub(super) fn give_up(&mut self, id: u64) {
        if let Some(deletion) = self.deletions.get_mut(id)
            && deletion.progress == Progress::Sent
        {
            deletion.progress = Progress::GivenUp;
            self.has_news = true;
        }
    }

    /// Releases the vectors whose messages the host can no longer send, and forgets messages that
    /// the host may have granted to functions that have since been removed.
    fn release_unsendable(&mut self, vectors: &Vectors) {
        let (functions, host_is_gone) = (&self.functions, self.host_is_gone);
        let cannot_send =
            |slot: Slot, epoch: u32| host_is_gone || !functions.is_present(slot, epoch);
        self.transactions.retain(|transaction| match transaction.state {
            State::Late(LateMessage { slot, epoch }) => !cannot_send(slot, epoch),
            State::Waiting | State::Done(_) | State::Deletion => true,
        });
        let is_over = |deletion: &Deletion| cannot_send(deletion.freed.slot, deletion.freed.epoch);
        while let Some(Deletion { freed, .. }) = self.deletions.take(is_over) {
            self.devices.release(vectors, freed.cookie, freed.block);
        }
        self.has_news = true;
    }

    /// Returns the answer to a request if it has arrived, or an error if the exchange ended first.
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

    /// Abandons a request. If the request asked for a message and a late answer grants one, the
    /// link returns this message to the host. Any other late answer is unexpected, because
    /// transaction IDs are never reused.
    pub(super) fn abandon(&mut self, id: u64, message: Option<LateMessage>) {
        let found = self.transactions.iter().position(|transaction| transaction.id == id);
        let Some(index) = found else { return };
        let state = self.transactions.swap_remove(index).state;
        let Some(late) = message else { return };
        match state {
            State::Done(completion) => self.settle(late, completion.bytes()),
            State::Waiting | State::Late(_) | State::Deletion => {
                // The host holds no messages for a removed function.
                if self.functions.is_present(late.slot, late.epoch) {
                    self.transactions.push(Transaction { id, state: State::Late(late) });
                }
            }
        }
    }

    /// Handles received packets until there are none left and the channel is re-armed, or the
    /// budget is used up.
    ///
    /// Context: task; may sleep.
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
            let Some(channel) = &mut self.channel else { break };
            match channel.receive(&mut buffer) {
                Ok(Some(received)) => {
                    let payload = buffer.get(..received.length).unwrap_or_default();
                    self.dispatch(received.kind, payload, vectors);
                }
                // If a packet arrived before the channel was re-armed, it didn't raise a signal.
                Ok(None) => match channel.idle() {
                    Ok(idle) => self.idle = idle,
                    Err(error) => self.fail(error, vectors),
                },
                Err(error) => self.fail(error, vectors),
            }
        }
        self.buffer = buffer;
        self.flush();
    }

    /// Ends the exchange after an error. Unless the host closed the channel, it may still send
    /// messages.
    fn fail(&mut self, error: ChannelError, vectors: &Vectors) {
        self.end = Some(VpciError::Channel { operation: "receive", error });
        self.host_is_gone |= error == ChannelError::Closed;
        self.release_unsendable(vectors);
    }

    fn dispatch(&mut self, kind: PacketKind, payload: &[u8], vectors: &Vectors) {
        match kind {
            PacketKind::Completion(id) => self.complete(id, payload, vectors),
            PacketKind::Notice | PacketKind::Request(_) => {
                if self.notice(payload, vectors).is_err() {
                    self.malformed();
                }
            }
        }
    }

    fn notice(&mut self, payload: &[u8], vectors: &Vectors) -> Result<(), ProtocolError> {
        match Notice::parse(payload)? {
            Notice::Relations(relations) => {
                self.functions.update(&relations);
                self.release_unsendable(vectors);
                self.has_relations = true;
            }
            Notice::Eject(slot) => {
                if !self.functions.eject(slot) {
                    self.unexpected();
                }
            }
            // The host's new list will show the change.
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
            Some(state @ State::Waiting) => {
                *state = State::Done(Completion::new(payload));
                self.has_news = true;
            }
            Some(State::Late(late)) => {
                let late = *late;
                self.transactions.swap_remove(index);
                self.late();
                self.settle(late, payload);
            }
            Some(State::Deletion) => {
                self.transactions.swap_remove(index);
                self.confirm(id, payload, vectors);
            }
            Some(State::Done(_)) | None => self.unexpected(),
        }
    }

    /// Handles the host's answer to a deletion. Releases the vectors if it succeeded.
    fn confirm(&mut self, id: u64, payload: &[u8], vectors: &Vectors) {
        self.has_news = true;
        let status = Status::parse(payload);
        if status.is_err() {
            self.malformed();
        }
        let is_late = match self.deletions.get_mut(id) {
            Some(deletion) => {
                let is_late = deletion.progress == Progress::GivenUp;
                deletion.progress = Progress::Refused;
                is_late
            }
            // The function was removed before the host answered.
            None => true,
        };
        if is_late {
            self.late();
        }
        if status.is_ok_and(Status::is_success)
            && let Some(Deletion { freed, .. }) = self.deletions.take(|deletion| deletion.id == id)
        {
            self.devices.release(vectors, freed.cookie, freed.block);
        }
    }

    /// Returns a late answer's message to the host.
    fn settle(&mut self, LateMessage { slot, epoch }: LateMessage, payload: &[u8]) {
        match InterruptReply::parse(payload) {
            // The transaction's entry is already free, so `send_later` has room for the deletion.
            Ok(Ok(InterruptReply(interrupt))) if self.functions.is_present(slot, epoch) => {
                self.send_later(Request::DeleteInterrupt { slot, interrupt });
            }
            Ok(_) => {}
            Err(_) => self.malformed(),
        }
    }

    /// Queues a message that needs no answer, until the channel has room. Drops the message if too
    /// many are waiting.
    pub(super) fn send_later(&mut self, request: Request) {
        if self.has_place() {
            self.unsent.push(request);
        }
    }

    /// Sends waiting requests in order. Returns `false` if the channel is full. In that case, the
    /// caller must not send another message before them: the host only signals room for the message
    /// that was refused last.
    fn flush(&mut self) -> bool {
        while let Some(request) = self.unsent.first().copied() {
            match self.send("settle", PacketKind::Notice, &request) {
                Ok(true) => {
                    self.unsent.remove(0);
                }
                Ok(false) => return false,
                Err(_) => self.unsent.clear(),
            }
        }
        while self.has_place()
            && let Some(deletion) = self.deletions.next_queued()
        {
            let (id, request) = (deletion.id, deletion.request());
            match self.send("delete interrupt", PacketKind::Request(id), &request) {
                Ok(true) => {
                    self.transactions.push(Transaction { id, state: State::Deletion });
                    if let Some(deletion) = self.deletions.get_mut(id) {
                        deletion.progress = Progress::Sent;
                    }
                }
                Ok(false) => return false,
                // The deletion stays queued until the channel is closed.
                Err(_) => return true,
            }
        }
        true
    }

    /// Ends the exchange. The caller must then drop the channel, and call [`closed`](Self::closed)
    /// or [`suspended`](Self::suspended) afterwards.
    pub(super) fn close(&mut self, end: VpciError) -> Option<Box<dyn Channel>> {
        if self.end != Some(VpciError::Closed) {
            self.end = Some(end);
        }
        self.unsent.clear();
        // Other tasks may still fetch their answers.
        let is_asked_for = |transaction: &Transaction| {
            matches!(transaction.state, State::Waiting | State::Done(_))
        };
        self.transactions.retain(is_asked_for);
        self.faults = self.faults();
        self.has_news = true;
        self.channel.take()
    }

    /// Returns `true` once the host can no longer send messages.
    pub(super) const fn host_is_gone(&self) -> bool {
        self.host_is_gone
    }

    /// Removes all functions and releases all freed vectors. The channel must already be closed.
    pub(super) fn closed(&mut self, vectors: &Vectors) {
        slots().for_each(|slot| self.functions.remove(slot));
        self.host_is_gone = true;
        self.release_unsendable(vectors);
    }

    /// Releases all freed vectors but keeps the functions. The channel must already be closed.
    pub(super) fn suspended(&mut self, vectors: &Vectors) {
        self.functions.suspend();
        self.host_is_gone = true;
        self.release_unsendable(vectors);
    }

    /// Restarts the exchange over another channel. Fails unless the bus is suspended.
    pub(super) fn resume(&mut self, channel: Box<dyn Channel>) -> Result<(), VpciError> {
        match self.end {
            Some(VpciError::Suspended) if self.channel.is_none() => {}
            Some(VpciError::Closed) => return Err(VpciError::Closed),
            _ => return Err(VpciError::NotSuspended),
        }
        self.channel = Some(channel);
        self.transactions.clear();
        (self.end, self.host_is_gone, self.is_full) = (None, false, false);
        (self.has_relations, self.idle) = (false, Idle::Busy);
        Ok(())
    }

    /// Returns `true` if something has happened that other tasks may wait for, so that they must be
    /// woken. `own` must be 1 if the calling task is counted as waiting, otherwise 0.
    pub(super) fn take_news(&mut self, own: u32) -> bool {
        core::mem::take(&mut self.has_news) && self.waiting > own
    }

    pub(super) const fn end(&self) -> Option<VpciError> {
        self.end
    }

    pub(super) fn faults(&self) -> Faults {
        let of_channel = self.channel.as_ref().map_or(0, |channel| channel.skipped());
        let skipped = self.faults.skipped.saturating_add(of_channel);
        Faults { skipped, ..self.faults }
    }

    fn malformed(&mut self) {
        self.faults.malformed = self.faults.malformed.saturating_add(1);
    }

    fn late(&mut self) {
        self.faults.late = self.faults.late.saturating_add(1);
    }

    fn unexpected(&mut self) {
        self.faults.unexpected = self.faults.unexpected.saturating_add(1);
    }
}
