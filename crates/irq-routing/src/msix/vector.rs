//! Send permission of one vector, which the device's threads and the guest's mask bits contend for.
//! One word holds all of it: a message is either sent while the vector is open, or stays pending.
//!
//! 1. A sender enters by compare-exchange: it counts itself if the vector is open, else it sets the
//!    pending bit. Then it reads the message's words, sends the message and leaves.
//! 2. A closer clears the open bit, sets the awaited bit and waits until no sender is inside. The
//!    last sender to leave wakes it.
//! 3. An opener of a closed vector stores the message's words, swaps in the open bit, and sends the
//!    message that was pending. The words never change under a sender.

use crate::lock::WaitQueue;
use crate::sync::{AtomicU64, SeqCst};
use crate::{RoutedMessage, Sender};
use msi_types::{DeviceId, MsiMessage};

/// Messages are sent.
const OPEN: u64 = 1;
/// A message waits until the vector is opened.
const PENDING: u64 = 1 << 1;
/// A thread closes the vector and waits until nobody sends.
const AWAITED: u64 = 1 << 2;
/// The message has a DeviceID.
const IDENTIFIED: u64 = 1 << 3;
/// One thread that is sending.
const SENDER: u64 = 1 << 4;
const SENDERS: u64 = !(SENDER - 1);

/// A vector's open and pending bits, its senders and its message. Has a cache line of its own, as
/// vectors belong to different threads.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct MsixVector {
    state: AtomicU64,
    address: AtomicU64,
    /// Data in the low half, DeviceID in the high one.
    rest: AtomicU64,
}

/// Result of a message's attempt to enter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// This is to be sent, which stays the vector's message until [`MsixVector::leave`].
    Open(RoutedMessage),
    /// It is pending.
    Held,
}

impl MsixVector {
    /// Creates a closed vector with nothing pending.
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { state: zero(), address: zero(), rest: zero() }
    }

    /// Enters the vector to send its message, or makes the message pending.
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

    /// Leaves after the message was sent. [`close`](Self::close) waits on `idle`.
    #[inline]
    pub(crate) fn leave(&self, idle: &WaitQueue) {
        let before = self.state.fetch_sub(SENDER, SeqCst);
        if before & (SENDERS | AWAITED) == SENDER | AWAITED {
            idle.wake();
        }
    }

    /// Reads the message while the caller counts as a sender.
    fn message(&self, state: u64) -> RoutedMessage {
        let (address, rest) = (self.address.load(SeqCst), self.rest.load(SeqCst));
        let (device, data) = ((rest >> 32) as u32, (rest & 0xffff_ffff) as u32);
        let identified = state & IDENTIFIED != 0;
        let sender =
            if identified { Sender::Device(DeviceId::new(device)) } else { Sender::Anonymous };
        RoutedMessage { sender, message: MsiMessage { address, data } }
    }

    /// Opens a closed vector: this message is sent from now on. Returns true if one was pending,
    /// which the caller must send.
    pub(crate) fn open(&self, RoutedMessage { sender, message }: RoutedMessage) -> bool {
        let (identified, device) = match sender {
            Sender::Anonymous => (0, 0),
            Sender::Device(device) => (IDENTIFIED, device.get()),
        };
        self.address.store(message.address, SeqCst);
        self.rest.store(u64::from(device) << 32 | u64::from(message.data), SeqCst);
        self.state.swap(OPEN | identified, SeqCst) & PENDING != 0
    }

    /// Closes the vector and waits for its senders. On return, no thread sends its message any
    /// more.
    pub(crate) fn close(&self, idle: &WaitQueue) {
        let sends = self.state.fetch_and(!OPEN, SeqCst) & SENDERS != 0;
        if sends {
            self.state.fetch_or(AWAITED, SeqCst);
            // No new senders enter, so this ends when those inside have left.
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
