//! A vector's permission to send, which arbitrates between the device's threads and the guest's
//! mask bits. The permission is a single word, so a message is either sent while the vector is open
//! or becomes pending.
//!
//! 1. A sender enters by compare-exchange. If the vector is open, this increments the count of
//!    senders. The sender then reads the words of the message, sends the message, and leaves by
//!    decrementing the count. If the vector is closed, the sender sets the pending bit and is done.
//! 2. A closer clears the open bit, sets the awaited bit and waits until the count of senders is 0.
//!    The last sender to leave wakes the closer.
//! 3. To open a closed vector, a thread stores the words of the message, swaps in the open bit, and
//!    sends the message if it was pending. The words never change while the count of senders is
//!    nonzero.

use crate::lock::WaitQueue;
use crate::sync::{AtomicU64, SeqCst};
use crate::{RoutedMessage, Sender};
use msi_types::{DeviceId, MsiMessage};

/// Bit that is set while the vector is open, i.e. while its messages are sent.
const OPEN: u64 = 1;
/// Bit that is set while a message waits for the vector to be opened.
const PENDING: u64 = 1 << 1;
/// Bit that is set while a thread is closing the vector and waits until no thread is sending.
const AWAITED: u64 = 1 << 2;
/// Bit that is set if the message has a DeviceID.
const IDENTIFIED: u64 = 1 << 3;
/// Lowest bit of the count of sending threads.
const SENDER: u64 = 1 << 4;
const SENDERS: u64 = !(SENDER - 1);

/// Open and pending bits, senders and message of a vector. The type is aligned to a cache line,
/// because different threads signal different vectors.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct MsixVector {
    state: AtomicU64,
    address: AtomicU64,
    /// Data in the low half, DeviceID in the high half.
    rest: AtomicU64,
}

/// Result of an attempt to enter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// The caller must send this message and then call [`MsixVector::leave`]. Until then, the
    /// vector's message does not change.
    Open(RoutedMessage),
    /// The vector is closed, and its pending bit is set.
    Held,
}

impl MsixVector {
    /// Creates a closed vector without a pending message.
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { state: zero(), address: zero(), rest: zero() }
    }

    /// Enters the vector to send its message, or makes the message pending if the vector is closed.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let mut word = self.state.load(SeqCst);
        loop {
            let open = word & OPEN != 0;
            let new = if open { word + SENDER } else { word | PENDING };
            match self.state.compare_exchange(word, new, SeqCst, SeqCst) {
                Ok(_) if open => return Entered::Open(self.message(word)),
                Ok(_) => return Entered::Held,
                Err(now) => word = now,
            }
        }
    }

    /// Leaves the vector after the message was sent. `idle` must be the queue that
    /// [`close`](Self::close) waits on.
    #[inline]
    pub(crate) fn leave(&self, idle: &WaitQueue) {
        let before = self.state.fetch_sub(SENDER, SeqCst);
        if before & (SENDERS | AWAITED) == SENDER | AWAITED {
            idle.wake();
        }
    }

    /// Reads the message. The caller must have entered the vector as a sender.
    fn message(&self, state: u64) -> RoutedMessage {
        let (address, rest) = (self.address.load(SeqCst), self.rest.load(SeqCst));
        let (device, data) = ((rest >> 32) as u32, (rest & 0xffff_ffff) as u32);
        let identified = state & IDENTIFIED != 0;
        let sender =
            if identified { Sender::Device(DeviceId::new(device)) } else { Sender::Anonymous };
        RoutedMessage { sender, message: MsiMessage { address, data } }
    }

    /// Opens a closed vector with this message. Returns `true` if a message was pending; the caller
    /// must then send it.
    pub(crate) fn open(&self, RoutedMessage { sender, message }: RoutedMessage) -> bool {
        let (identified, device) = match sender {
            Sender::Anonymous => (0, 0),
            Sender::Device(device) => (IDENTIFIED, device.get()),
        };
        self.address.store(message.address, SeqCst);
        self.rest.store(u64::from(device) << 32 | u64::from(message.data), SeqCst);
        self.state.swap(OPEN | identified, SeqCst) & PENDING != 0
    }

    /// Closes the vector and waits for its senders. On return, no thread is sending its message.
    pub(crate) fn close(&self, idle: &WaitQueue) {
        let sends = self.state.fetch_and(!OPEN, SeqCst) & SENDERS != 0;
        if sends {
            self.state.fetch_or(AWAITED, SeqCst);
            // No new sender can enter, so we only wait for senders that have already entered.
            idle.wait_until(|| self.state.load(SeqCst) & SENDERS == 0);
            self.state.fetch_and(!AWAITED, SeqCst);
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.state.load(SeqCst) & PENDING != 0
    }

    /// Clears the pending bit without sending.
    pub(crate) fn forget(&self) {
        self.state.fetch_and(!PENDING, SeqCst);
    }
}
