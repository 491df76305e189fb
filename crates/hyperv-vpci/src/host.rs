//! The host's end of the bus: offers functions, answers the guest's requests and injects
//! interrupts.
//!
//! ```text
//! guest ──request──▶ Host ──────────── writes ────────────▶ FunctionInterrupts
//!                     │ message                                   ▲ reads, without a lock
//! guest stores the message in its function ──▶ device model ── signal_msi ──▶ SetLine or SignalMsi
//! ```
//!
//! A [`Host`] must be used by one thread at a time, or under a lock. Each device model owns its
//! function's [`FunctionInterrupts`], and can send without taking a lock or allocating. Once the
//! host has answered a deletion, the deleted message can no longer be sent.
//!
//! The guest chooses the vectors, but only among its own, so it can't disturb other guests. A
//! request that is malformed, out of order or over the quota is refused and has no effect. If a
//! guest sends requests before it has negotiated a version, or negotiates twice, the VMM must close
//! its channel.

mod config;
mod injection;
mod offer_table;
mod request_handler;
mod saved;

pub use config::{HostConfig, HostError, HostFunction, RestoreError};
pub use injection::{FunctionInterrupts, Injection};
pub use saved::{SavedFunction, SavedHost, SavedMapping, SavedReply};

use crate::channel::{Channel, ChannelError, Idle, PacketKind};
use crate::protocol::reply::{AssignedReply, BarsReply, InterruptReply, Status, VersionReply};
use crate::protocol::{MAX_MESSAGE, Notice, ProtocolError, Relations, Retarget, Slot, Version};
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::try_arc;
use offer_table::OfferTable;

/// Maximum number of packets per call. Without a limit, a guest that never stops sending could
/// occupy the host's thread.
const BUDGET: usize = 64;

/// An answer that hasn't been sent yet.
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

/// Remaining work after [`Host::serve`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Served {
    /// Every request was answered, and `serve` has re-armed the channel with [`Channel::idle`], so
    /// the next request raises a signal. The VMM must call again when the channel signals.
    All,
    /// Requests are left. The VMM must call again without waiting for a signal.
    More,
    /// The guest must make room first. The VMM must call again when the channel signals.
    Blocked,
}

/// The host's end of a virtual bus.
///
/// ```
/// # use msi_types::{Delivery, Level, Line, SetLine};
/// # use std::{num::NonZeroU8, sync::Arc};
/// # struct Gic;
/// # impl SetLine for Gic {
/// #     fn set_line(&self, _: Line, _: Level) -> Delivery { Delivery::Pending }
/// #     fn pulse(&self, _: Line) -> Delivery { Delivery::Pending }
/// # }
/// # use hyperv_vpci::ring::{HeapRing, RingChannel};
/// # let pages = NonZeroU8::MIN;
/// # let mut channel = RingChannel::new(HeapRing::new(pages)?, HeapRing::new(pages)?, || ())?;
/// use hyperv_vpci::host::{Host, HostConfig, HostFunction, Injection, Served};
/// use hyperv_vpci::protocol::{DeviceDescription, Slot};
///
/// let config = HostConfig::new(1, 0xfeed_0000, *b"a bus's instance");
/// let mut host = Host::new(config, Injection::Spi(Arc::new(Gic)))?;
/// let nic = DeviceDescription { vendor: 0x1414, slot: Slot::new(0, 0), ..Default::default() };
/// let sender = host.offer(HostFunction::new(nic, [0; 6]))?; // for the device model
///
/// // Whenever the guest signals the channel:
/// while host.serve(&mut channel)? == Served::More {}
/// # drop(sender);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`kernel.rs`] connects both ends.
///
/// [`kernel.rs`]: https://github.com/doorbell-rs/doorbell/blob/main/crates/hyperv-vpci/examples/kernel.rs
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    injection: Injection,
    version: Option<Version>,
    /// Address of the configuration window while the bus is on.
    window: Option<u64>,
    /// Longest message that the channel can send, as far as it is known.
    capacity: usize,
    functions: OfferTable,
    /// `true` if the guest must still be sent the list of functions.
    relations_pending: bool,
    /// Transaction ID and answer to send. No further request is received until this answer has been
    /// sent.
    reply: Option<(u64, Reply)>,
    buffer: Vec<u8>,
}

impl Host {
    /// Creates a bus without functions.
    ///
    /// # Errors
    /// Returns [`HostError::NoMemory`] if the host's heap is exhausted.
    pub fn new(config: HostConfig, injection: Injection) -> Result<Self, HostError> {
        let mut buffer = Vec::new();
        // The list of functions is built in one half of the buffer and emitted to the other half.
        buffer.try_reserve_exact(2 * MAX_MESSAGE).map_err(|_| HostError::NoMemory)?;
        buffer.resize(2 * MAX_MESSAGE, 0);
        Ok(Self {
            config,
            injection,
            version: None,
            window: None,
            capacity: usize::MAX,
            functions: OfferTable::default(),
            relations_pending: false,
            reply: None,
            buffer,
        })
    }

    /// Offers a function. The function's device model uses the returned object to send interrupts.
    ///
    /// # Errors
    /// Returns [`HostError::SlotInUse`] if the slot is occupied, [`HostError::RingTooSmall`] if the
    /// guest's ring has no room for the list with the function, or [`HostError::NoMemory`] if the
    /// host's heap is exhausted.
    pub fn offer(&mut self, function: HostFunction) -> Result<Arc<FunctionInterrupts>, HostError> {
        if let (Some(version), None) = (self.version, self.functions.get(function.description.slot))
        {
            self.check_list(version, self.functions.iter().len() + 1)?;
        }
        let interrupts = FunctionInterrupts::new(&self.config, self.injection.clone())?;
        let interrupts = try_arc(interrupts).map_err(|_| HostError::NoMemory)?;
        self.functions.offer(function, interrupts.clone())?;
        self.list_again();
        Ok(interrupts)
    }

    /// Requests the ejection of a function. The request is sent while the bus is on, and sent again
    /// if the guest turns the bus off and on before it confirms. The function is removed when the
    /// guest confirms.
    ///
    /// # Errors
    /// Returns [`HostError::NoFunction`] if the slot is empty.
    pub fn eject(&mut self, slot: Slot) -> Result<(), HostError> {
        self.functions.get_mut(slot).ok_or(HostError::NoFunction(slot))?.begin_ejection();
        Ok(())
    }

    /// Removes a function immediately, even if the guest is using it. On return, the function sends
    /// no more interrupts.
    ///
    /// # Errors
    /// Returns [`HostError::NoFunction`] if the slot is empty.
    pub fn remove(&mut self, slot: Slot) -> Result<(), HostError> {
        self.functions.remove(slot).ok_or(HostError::NoFunction(slot))?;
        self.list_again();
        Ok(())
    }

    /// Sends the guest a new list. While the bus is off, none is needed: the guest receives one
    /// when it turns the bus on.
    const fn list_again(&mut self) {
        self.relations_pending |= self.window.is_some();
    }

    /// Returns an error if the guest's ring has no room for a list of `count` functions. The
    /// protocol cannot split a list: a function that a list doesn't contain counts as removed.
    fn check_list(&self, version: Version, count: usize) -> Result<(), HostError> {
        let needed = Relations::message_length(version.relations(), count);
        let room = self.capacity;
        if needed <= room { Ok(()) } else { Err(HostError::RingTooSmall { needed, room }) }
    }

    /// Serves the guest's requests. The VMM must call this when the channel signals, and after each
    /// call to another method that changes the bus.
    ///
    /// # Errors
    /// Returns an error if the channel failed, the guest violated the protocol, or its ring has no
    /// room for the list of functions. The VMM must then close the channel and
    /// [reset](Self::reset) the host.
    pub fn serve(&mut self, channel: &mut dyn Channel) -> Result<Served, HostError> {
        self.capacity = channel.capacity();
        for _ in 0..BUDGET {
            // Send the pending answer before receiving the next request.
            if !self.flush(channel)? {
                return Ok(Served::Blocked);
            }
            let mut buffer = core::mem::take(&mut self.buffer);
            let received = channel.receive(&mut buffer);
            let result = match received {
                Ok(Some(received)) => {
                    self.take(received.kind, received.payload(&buffer)).map(|()| true)
                }
                // If a request arrived before the channel was re-armed, it didn't raise a signal.
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

    fn take(&mut self, kind: PacketKind, payload: Option<&[u8]>) -> Result<(), HostError> {
        let wants = match kind {
            PacketKind::Request(id) => Some(id),
            PacketKind::Notice => None,
            // We don't send requests, so we don't expect completions.
            PacketKind::Completion(_) => return Err(HostError::OutOfOrder),
        };
        let reply = self.answer(payload)?;
        self.reply = wants.map(|id| (id, reply));
        Ok(())
    }

    /// Sends pending messages. Returns `false` if the guest must make room first. Messages must not
    /// overtake one that has no room: the guest only signals room for the last one.
    ///
    /// A guest that negotiates expects no notice. It relies on the list before its D0 entry is
    /// answered, and may only then be able to eject a function.
    fn flush(&mut self, channel: &mut dyn Channel) -> Result<bool, HostError> {
        let negotiates = matches!(self.reply, Some((_, Reply::Version(_))));
        if negotiates && !self.send_reply(channel)? {
            return Ok(false);
        }
        if self.relations_pending {
            let form = self.version.unwrap_or(Version::V1_2).relations();
            let (room, out) = self.buffer.split_at_mut(MAX_MESSAGE);
            let relations = Relations::new(form, self.functions.descriptions(), room);
            let notice = relations.map(Notice::Relations);
            let length = notice.and_then(|notice| notice.emit(out)).map_err(HostError::Emit)?;
            if !sent(channel.send(PacketKind::Notice, out.get(..length).unwrap_or_default()))? {
                return Ok(false);
            }
            self.relations_pending = false;
        }
        if !self.send_reply(channel)? {
            return Ok(false);
        }
        while self.window.is_some()
            && let Some(slot) = self.functions.ejection()
        {
            let length = Notice::Eject(slot).emit(&mut self.buffer).map_err(HostError::Emit)?;
            let message = self.buffer.get(..length).unwrap_or_default();
            if !sent(channel.send(PacketKind::Notice, message))? {
                return Ok(false);
            }
            if let Some(function) = self.functions.get_mut(slot) {
                function.ejection_was_sent();
            }
        }
        Ok(true)
    }

    /// Sends the pending answer, if any. Returns `false` if the guest must make room first.
    fn send_reply(&mut self, channel: &mut dyn Channel) -> Result<bool, HostError> {
        let Some((id, reply)) = self.reply else { return Ok(true) };
        let length = reply.emit(&mut self.buffer).map_err(HostError::Emit)?;
        let message = self.buffer.get(..length).unwrap_or_default();
        let was_sent = sent(channel.send(PacketKind::Completion(id), message))?;
        if was_sent {
            self.reply = None;
        }
        Ok(was_sent)
    }

    /// Serves the hypercall that retargets an interrupt on x86, and returns its status. `input`
    /// must have the [length](Retarget::input_length) that the guest's control word announces.
    pub fn retarget(&mut self, input: &[u8]) -> u16 {
        let done = Retarget::parse(input).ok().filter(|_| self.window.is_some());
        match done.and_then(|retarget| self.functions.retarget(&self.config, &retarget)) {
            Some(()) => HV_STATUS_SUCCESS,
            None => HV_STATUS_INVALID_PARAMETER,
        }
    }

    /// Resets the host to its initial state, e.g. after the channel was closed. Functions remain
    /// offered but send no interrupts, and pending ejections stay pending.
    pub fn reset(&mut self) {
        self.version = None;
        self.window = None;
        self.reply = None;
        self.relations_pending = false;
        self.capacity = usize::MAX;
        self.functions.power_off();
    }

    /// Returns the guest physical address of the configuration window while the bus is on: 8 KiB
    /// through which the guest selects a function and accesses its configuration space. A
    /// confidential guest hands over the address with its vTOM bit set, because the window is
    /// shared with the host. The returned address doesn't have the bit, provided that
    /// [`HostConfig::with_vtom`] is set; otherwise, the VMM must clear the bit. Such a guest may
    /// access the window with or without the bit.
    pub const fn window(&self) -> Option<u64> {
        self.window
    }

    /// Returns the protocol version, once negotiated.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Returns the number of a function's vectors that have messages.
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
