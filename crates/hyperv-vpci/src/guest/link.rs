//! The link to the host: unanswered requests, notices and attached devices.
//!
//! Transaction IDs are never reused. This lets the link recognize duplicate and unsolicited
//! answers, and decide what to do with a late one.

use super::function_table::{Completion, FunctionId, FunctionTable, State, Transaction, slots};
use super::interrupt_table::{Deletion, DeletionQueue, FreedBlock, Progress};
use super::vectors::{DeviceTable, Vectors};
use super::{Faults, VpciError};
use crate::channel::{Channel, ChannelError, Idle, PacketKind};
use crate::protocol::reply::{InterruptReply, Status};
use crate::protocol::{MAX_MESSAGE, Notice, ProtocolError, Request, TranslatedInterrupt};
use alloc::boxed::Box;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use msi_types::HwIrq;

/// Maximum number of unanswered requests (the same as in Linux).
const MAX_UNANSWERED: usize = 64;

/// Work per poll, in short packets. Without a limit, a host that never stops sending could occupy a
/// task indefinitely.
const BUDGET: usize = 256;

/// Number of payload bytes that take as much work as a short packet.
const BYTES_PER_UNIT: usize = 112;

/// Work per list of functions, in short packets. Even an empty list updates every slot, so a poll
/// handles at most four lists of any length.
const LIST_UNITS: usize = 64;

/// Length in bytes of the guest's longest request: a resource assignment with room for one
/// interrupt.
const MAX_REQUEST: usize = 216;

/// State of the link.
pub(super) struct Link {
    /// `None` once the bus is closed.
    channel: Option<Box<dyn Channel>>,
    transactions: Vec<Transaction>,
    /// Messages to send to the host once the channel has room. A message about a function is
    /// dropped if the function is removed first.
    unsent: Vec<(Request, Option<FunctionId>)>,
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
    /// `true` if a D0 entry was sent over this channel.
    pub(super) may_be_on: bool,
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
        let buffer = try_collect(core::iter::repeat_n(0, MAX_MESSAGE)).map_err(no_memory)?;
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
            may_be_on: false,
            idle: Idle::Busy,
        })
    }

    /// Fails if the function was removed, even if another one has taken its slot. Every message
    /// about a function must be checked under the lock under which it is sent.
    pub(super) fn check_present(&self, about: Option<FunctionId>) -> Result<(), VpciError> {
        match about.filter(|id| !self.functions.is_present(*id)) {
            Some(id) => Err(VpciError::NoFunction(id.slot)),
            None => Ok(()),
        }
    }

    /// Sends a request that needs an answer, and returns its transaction ID. Returns `None` if the
    /// channel has no room yet.
    pub(super) fn begin(
        &mut self,
        operation: &'static str,
        request: &Request,
        about: Option<FunctionId>,
    ) -> Result<Option<u64>, VpciError> {
        self.end.map_or_else(|| self.check_present(about), Err)?;
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
        about: Option<FunctionId>,
    ) -> Result<bool, VpciError> {
        self.end.map_or_else(|| self.check_present(about), Err)?;
        Ok(self.flush() && self.send(operation, PacketKind::Notice, request)?)
    }

    fn send(
        &mut self,
        operation: &'static str,
        kind: PacketKind,
        request: &Request,
    ) -> Result<bool, VpciError> {
        self.end.map_or(Ok(()), Err)?;
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

    /// Asks the host to delete the message of freed vectors, if it has granted one. The vectors are
    /// released once the host can no longer send or grant this message. If the host must confirm,
    /// returns the deletion's transaction ID.
    pub(super) fn delete(&mut self, vectors: &Vectors, freed: FreedBlock) -> Option<u64> {
        if self.host_is_gone || !self.functions.is_present(freed.function) {
            self.devices.release(vectors, freed.cookie, freed.block);
            return None;
        }
        let has_message = freed.interrupt.is_some();
        let id = self.next_id;
        self.next_id += 1;
        self.deletions.push(id, freed);
        self.flush();
        self.release_answered(vectors);
        has_message.then_some(id)
    }

    /// Returns `true` if the caller must stop waiting: either the host has answered the deletion,
    /// or we can't track its request.
    pub(super) fn is_settled(&mut self, id: u64) -> bool {
        let has_place = self.has_place();
        self.deletions.get_mut(id).is_none_or(|deletion| match deletion.progress {
            Progress::Queued => !has_place,
            Progress::Sent | Progress::GivenUp => false,
            Progress::Refused | Progress::Ungranted => true,
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
    /// the host may have granted to functions that have since been removed. Another function may be
    /// in the same slot, so it must not receive their deletions.
    fn release_unsendable(&mut self, vectors: &Vectors) {
        let (functions, host_is_gone) = (&self.functions, self.host_is_gone);
        let cannot_send = |id: FunctionId| host_is_gone || !functions.is_present(id);
        self.transactions.retain(|transaction| match transaction.state {
            State::Late(id, _) => !cannot_send(id),
            State::Waiting | State::Done(_) | State::Deletion => true,
        });
        self.unsent.retain(|(_, about)| !about.is_some_and(cannot_send));
        let is_over = |deletion: &Deletion| cannot_send(deletion.freed.function);
        while let Some(Deletion { freed, .. }) = self.deletions.take(is_over) {
            self.devices.release(vectors, freed.cookie, freed.block);
        }
        self.has_news = true;
    }

    /// Returns the answer to a request if it has arrived, or an error if the exchange ended first.
    pub(super) fn take(&mut self, id: u64) -> Result<Option<Completion>, VpciError> {
        let known = self.transactions.iter().find(|transaction| transaction.id == id);
        let taken = match (known.map(|transaction| &transaction.state), self.end) {
            (Some(State::Done(completion)), _) => Ok(Some(*completion)),
            (Some(_), Some(end)) => Err(end),
            (Some(_), None) | (None, _) => return Ok(None),
        };
        self.forget(id);
        taken
    }

    /// Removes a request, and returns its state.
    fn forget(&mut self, id: u64) -> Option<State> {
        let index = self.transactions.iter().position(|transaction| transaction.id == id)?;
        Some(self.transactions.swap_remove(index).state)
    }

    /// Abandons a request. If the request asked for a message and a late answer grants one, the
    /// link returns this message to the host. Any other late answer is unexpected, because
    /// transaction IDs are never reused.
    pub(super) fn abandon(&mut self, id: u64, message: Option<(FunctionId, HwIrq)>) {
        let Some((state, (late, first))) = self.forget(id).zip(message) else { return };
        match state {
            State::Done(completion) => self.settle(late, completion.bytes()),
            State::Waiting | State::Late(..) | State::Deletion => {
                // The host holds no messages for a removed function.
                if self.functions.is_present(late) {
                    self.transactions.push(Transaction { id, state: State::Late(late, first) });
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
        let mut budget = BUDGET;
        while budget > 0 {
            if self.end.is_some() {
                self.idle = Idle::Sleep;
            }
            if self.idle == Idle::Sleep {
                break;
            }
            let Some(channel) = &mut self.channel else { break };
            match channel.receive(&mut buffer) {
                Ok(Some(received)) => {
                    budget = budget.saturating_sub(1 + received.length / BYTES_PER_UNIT);
                    match (received.kind, received.payload(&buffer)) {
                        (PacketKind::Completion(id), payload) => {
                            self.complete(id, payload.unwrap_or_default(), vectors);
                        }
                        (_, Some(payload)) => match self.notice(payload, vectors) {
                            Ok(units) => budget = budget.saturating_sub(units),
                            Err(_) => count(&mut self.faults.malformed),
                        },
                        // The channel has counted the packet.
                        (_, None) => {}
                    }
                }
                // If a packet arrived before the channel was re-armed, it didn't raise a signal.
                Ok(None) => {
                    budget -= 1;
                    match channel.idle() {
                        Ok(idle) => self.idle = idle,
                        Err(error) => self.fail(error, vectors),
                    }
                }
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

    /// Handles a notice, and returns the work beyond that of a packet of this length.
    fn notice(&mut self, payload: &[u8], vectors: &Vectors) -> Result<usize, ProtocolError> {
        match Notice::parse(payload)? {
            Notice::Relations(relations) => {
                self.functions.update(&relations);
                self.release_unsendable(vectors);
                self.has_relations = true;
                return Ok(LIST_UNITS);
            }
            Notice::Eject(slot) => {
                if !self.functions.eject(slot) {
                    count(&mut self.faults.unexpected);
                }
            }
            // The host's new list will show the change.
            Notice::InvalidateDevice(_) | Notice::InvalidateBus => {
                let query = (Request::QueryRelations, None);
                if !self.unsent.contains(&query) {
                    self.send_later(query);
                }
            }
        }
        Ok(0)
    }

    fn complete(&mut self, id: u64, payload: &[u8], vectors: &Vectors) {
        let known = self.transactions.iter_mut().find(|transaction| transaction.id == id);
        match known.map(|transaction| &mut transaction.state) {
            Some(state @ State::Waiting) => {
                *state = State::Done(Completion::new(payload));
                self.has_news = true;
            }
            Some(&mut State::Late(late, _)) => {
                self.forget(id);
                count(&mut self.faults.late);
                // A message is returned ahead of the next request for these vectors.
                self.settle(late, payload);
                self.release_answered(vectors);
            }
            Some(State::Deletion) => {
                self.forget(id);
                self.confirm(id, payload, vectors);
            }
            Some(State::Done(_)) | None => count(&mut self.faults.unexpected),
        }
    }

    /// Handles the host's answer to a deletion. Releases the vectors if it succeeded.
    fn confirm(&mut self, id: u64, payload: &[u8], vectors: &Vectors) {
        self.has_news = true;
        let status = Status::parse(payload);
        if status.is_err() {
            count(&mut self.faults.malformed);
        }
        let is_deleted = status.is_ok_and(Status::is_success);
        let progress = if is_deleted { Progress::Ungranted } else { Progress::Refused };
        let deletion = self.deletions.get_mut(id);
        let before = deletion.map(|of| core::mem::replace(&mut of.progress, progress));
        // There is no deletion if the function was removed before the host answered.
        if matches!(before, None | Some(Progress::GivenUp)) {
            count(&mut self.faults.late);
        }
        if is_deleted {
            self.release_answered(vectors);
        }
    }

    /// Releases freed vectors without a message, once the host can no longer grant one.
    fn release_answered(&mut self, vectors: &Vectors) {
        let transactions = &self.transactions;
        let is_over = |Deletion { progress, freed, .. }: &Deletion| {
            let late = State::Late(freed.function, freed.block.first());
            *progress == Progress::Ungranted && transactions.iter().all(|of| of.state != late)
        };
        while let Some(Deletion { freed, .. }) = self.deletions.take(is_over) {
            self.devices.release(vectors, freed.cookie, freed.block);
        }
    }

    /// Returns a late answer's message to the host.
    fn settle(&mut self, late: FunctionId, payload: &[u8]) {
        match InterruptReply::parse(payload) {
            // The transaction's entry is already free, so there is room for the deletion.
            Ok(Ok(InterruptReply(interrupt))) => self.give_back(late, interrupt),
            Ok(Err(_)) => {}
            Err(_) => count(&mut self.faults.malformed),
        }
    }

    /// Returns a message that the host granted to a function, unless the function was removed.
    pub(super) fn give_back(&mut self, to: FunctionId, interrupt: TranslatedInterrupt) {
        if self.functions.is_present(to) {
            self.send_later((Request::DeleteInterrupt { slot: to.slot, interrupt }, Some(to)));
        }
    }

    /// Queues a message that needs no answer, until the channel has room. Drops the message if too
    /// many are waiting.
    fn send_later(&mut self, message: (Request, Option<FunctionId>)) {
        if self.has_place() {
            self.unsent.push(message);
        }
    }

    /// Sends waiting requests in order. Returns `false` if the channel is full. In that case, the
    /// caller must not send another message before them: the host only signals room for the message
    /// that was refused last.
    fn flush(&mut self) -> bool {
        while let Some((request, _)) = self.unsent.first().copied() {
            match self.send("settle", PacketKind::Notice, &request) {
                Ok(true) => {
                    self.unsent.remove(0);
                }
                Ok(false) => return false,
                Err(_) => self.unsent.clear(),
            }
        }
        while self.has_place()
            && let Some((id, request)) = self.deletions.next_queued()
        {
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
        (self.has_relations, self.may_be_on, self.idle) = (false, false, Idle::Busy);
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
}

/// Counts a fault.
fn count(faults: &mut u32) {
    *faults = faults.saturating_add(1);
}
