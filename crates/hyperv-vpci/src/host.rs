//! The host's end: offers functions, answers a guest's requests, and injects its interrupts.
//!
//! ```text
//! guest ──request──▶ Host ──────────── writes ────────────▶ FunctionInterrupts
//!                     │ message                                   ▲ reads, without a lock
//! guest stores the message in its function ──▶ device model ── signal_msi ──▶ SetLine or SignalMsi
//! ```
//!
//! A [`Host`] belongs to one thread at a time, or to a lock. The [`FunctionInterrupts`] of a
//! function go to its device model: sending takes no lock and allocates nothing. After the answer
//! to a deletion nothing more is sent for the message.
//!
//! A guest chooses the vectors, and they are its own: it can disturb nobody else. A request that
//! is malformed, out of order or over its quota is refused, and changes nothing. A guest that
//! talks before it negotiated, or negotiates twice, loses its channel.

mod config;
mod error;
mod injection;
mod offer_table;
mod request_handler;
mod saved;

pub use config::{HostConfig, HostFunction};
pub use error::{HostError, RestoreError};
pub use injection::{FunctionInterrupts, Injection};
pub use saved::{SavedFunction, SavedHost, SavedMapping, SavedReply};

use crate::channel::{Channel, ChannelError, Idle, PacketKind};
use crate::protocol::reply::{AssignedReply, BarsReply, InterruptReply, Status, VersionReply};
use crate::protocol::{MAX_MESSAGE, Notice, ProtocolError, Relations, Retarget, Slot, Version};
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::try_arc;
use offer_table::OfferTable;

/// Packets that one call serves: a guest that never stops sending does not hold its host up.
const BUDGET: usize = 64;

/// An answer that was not sent yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Status(Status),
    Version(VersionReply),
    Bars(BarsReply),
    Interrupt(InterruptReply),
    Assigned(AssignedReply),
}

impl Reply {
    fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        match self {
            Self::Status(status) => status.emit(out),
            Self::Version(reply) => reply.emit(out),
            Self::Bars(reply) => reply.emit(out),
            Self::Interrupt(reply) => reply.emit(out),
            Self::Assigned(reply) => reply.emit(out),
        }
    }
}

/// The progress of [`Host::serve`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Served {
    /// Every request was answered, and the next one raises a signal: `serve` has re-armed the
    /// channel with [`Channel::idle`]. The next call is due when the channel signals.
    All,
    /// More is waiting.
    More,
    /// The guest has to make room first. The next call is due when the channel signals.
    Blocked,
}

/// The host's end of a virtual bus.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    injection: Injection,
    version: Option<Version>,
    /// The configuration window while the bus is on.
    window: Option<u64>,
    functions: OfferTable,
    /// The guest has to be told of the functions.
    relations_pending: bool,
    /// The answer that is not sent yet. The next request is taken after it.
    reply: Option<(u64, Reply)>,
    buffer: Vec<u8>,
}

impl Host {
    /// A bus without functions.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn new(config: HostConfig, injection: Injection) -> Result<Self, HostError> {
        let mut buffer = Vec::new();
        // Relations are made in one half and emitted to the other.
        buffer.try_reserve_exact(2 * MAX_MESSAGE).map_err(|_| HostError::NoMemory)?;
        buffer.resize(2 * MAX_MESSAGE, 0);
        Ok(Self {
            config,
            injection,
            version: None,
            window: None,
            functions: OfferTable::default(),
            relations_pending: false,
            reply: None,
            buffer,
        })
    }

    /// Offers a function. The device model sends by what is returned.
    ///
    /// # Errors
    /// [`HostError::SlotInUse`], [`HostError::NoMemory`].
    pub fn offer(&mut self, function: HostFunction) -> Result<Arc<FunctionInterrupts>, HostError> {
        let interrupts = FunctionInterrupts::new(&self.config, self.injection.clone())?;
        let interrupts = try_arc(interrupts).map_err(|_| HostError::NoMemory)?;
        self.functions.offer(function, interrupts.clone())?;
        self.relations_pending = self.version.is_some();
        Ok(interrupts)
    }

    /// Asks the guest to let a function go. It is gone once the guest confirms.
    ///
    /// # Errors
    /// [`HostError::NoFunction`].
    pub fn eject(&mut self, slot: Slot) -> Result<(), HostError> {
        self.functions.get_mut(slot).ok_or(HostError::NoFunction(slot))?.begin_ejection();
        Ok(())
    }

    /// Takes a function away, whatever the guest does with it. On return it sends nothing more.
    ///
    /// # Errors
    /// [`HostError::NoFunction`].
    pub fn remove(&mut self, slot: Slot) -> Result<(), HostError> {
        self.functions.remove(slot).ok_or(HostError::NoFunction(slot))?;
        self.relations_pending = self.version.is_some();
        Ok(())
    }

    /// Serves the guest's requests. To be called when the channel signals, and after each of the
    /// other calls.
    ///
    /// # Errors
    /// The channel failed or the guest broke its rules: it is to be closed, and the host
    /// [reset](Self::reset).
    pub fn serve(&mut self, channel: &mut dyn Channel) -> Result<Served, HostError> {
        for _ in 0..BUDGET {
            // The answer goes before the next request is taken.
            if !self.flush(channel)? {
                return Ok(Served::Blocked);
            }
            let mut buffer = core::mem::take(&mut self.buffer);
            let received = channel.receive(&mut buffer);
            let result = match received {
                Ok(Some(received)) => {
                    let payload = buffer.get(..received.length).unwrap_or_default();
                    self.take(received.kind, payload).map(|()| true)
                }
                // A request that arrived before the channel was re-armed raised no signal.
                Ok(None) => channel.idle().map(|idle| idle == Idle::Busy).map_err(HostError::from),
                Err(error) => Err(error.into()),
            };
            self.buffer = buffer;
            if !result? {
                return Ok(Served::All);
            }
        }
        Ok(Served::More)
    }

    fn take(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), HostError> {
        let wants = match kind {
            PacketKind::Request(id) => Some(id),
            PacketKind::Notice => None,
            // The host asks nothing.
            PacketKind::Completion(_) => return Err(HostError::OutOfOrder),
        };
        let reply = self.answer(payload)?;
        self.reply = wants.map(|id| (id, reply));
        Ok(())
    }

    /// Sends what is pending. Returns false if the guest has to make room first.
    fn flush(&mut self, channel: &mut dyn Channel) -> Result<bool, HostError> {
        if self.relations_pending {
            let form = self.version.unwrap_or(Version::V1_1).relations();
            let (room, out) = self.buffer.split_at_mut(MAX_MESSAGE);
            let relations = Relations::new(form, self.functions.descriptions(), room);
            let notice = relations.map(Notice::Relations);
            let length = notice.and_then(|notice| notice.emit(out)).map_err(HostError::Emit)?;
            if !sent(channel.send(PacketKind::Notice, out.get(..length).unwrap_or_default()))? {
                return Ok(false);
            }
            self.relations_pending = false;
        }
        while self.version.is_some()
            && let Some(slot) = self.functions.ejection()
        {
            let length = Notice::Eject(slot).emit(&mut self.buffer).map_err(HostError::Emit)?;
            let message = self.buffer.get(..length).unwrap_or_default();
            // An answer must not overtake the notice, or the guest would not signal that the
            // channel has room.
            if !sent(channel.send(PacketKind::Notice, message))? {
                return Ok(false);
            }
            if let Some(function) = self.functions.get_mut(slot) {
                function.ejection_was_sent();
            }
        }
        if let Some((id, reply)) = self.reply {
            let length = reply.emit(&mut self.buffer).map_err(HostError::Emit)?;
            let message = self.buffer.get(..length).unwrap_or_default();
            if !sent(channel.send(PacketKind::Completion(id), message))? {
                return Ok(false);
            }
            self.reply = None;
        }
        Ok(true)
    }

    /// Serves the hypercall that moves an interrupt on x86, and returns the hypervisor's status.
    /// `input` must have the [length](Retarget::input_length) that the guest's control word
    /// announces.
    pub fn retarget(&mut self, input: &[u8]) -> u16 {
        let done = Retarget::parse(input).ok().filter(|_| self.window.is_some());
        match done.and_then(|retarget| self.functions.retarget(&self.config, &retarget)) {
            Some(()) => HV_STATUS_SUCCESS,
            None => HV_STATUS_INVALID_PARAMETER,
        }
    }

    /// The channel was closed: all is as before its first message. Offers stay offered and
    /// send nothing; a function that was to be ejected is still to be.
    pub fn reset(&mut self) {
        self.version = None;
        self.window = None;
        self.reply = None;
        self.relations_pending = false;
        self.functions.power_off();
    }

    /// The address of the [configuration window](crate::config_window) while the bus is on.
    pub const fn window(&self) -> Option<u64> {
        self.window
    }

    /// The version that both ends speak, once they agreed.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Number of vectors that a function has messages for.
    pub fn vectors(&self, slot: Slot) -> u32 {
        self.functions.get(slot).map_or(0, offer_table::Offered::vectors)
    }
}

const HV_STATUS_SUCCESS: u16 = 0;
const HV_STATUS_INVALID_PARAMETER: u16 = 5;

fn sent(result: Result<(), ChannelError>) -> Result<bool, HostError> {
    match result {
        Ok(()) => Ok(true),
        Err(ChannelError::Full) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
