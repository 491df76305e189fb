//! Send permission of one vector, which the device's threads and the guest's mask bits contend for.
//! One word holds all of it: a message is either sent while the vector is open, or stays pending.
//!
//! 1. A sender enters by compare-exchange: it counts itself if the vector is open, else it sets the
//!    pending bit. Then it signals the GSI and leaves.
//! 2. A closer clears the open bit, sets the awaited bit and waits until no sender is inside. The
//!    last sender to leave wakes it.
//! 3. An opener swaps in the GSI and the open bit, and sends the message that was pending.

use crate::lock::WaitQueue;
use crate::sync::{AtomicU64, SeqCst};
use msi_types::Gsi;

/// Messages are sent.
const OPEN: u64 = 1;
/// A message waits until the vector is opened.
const PENDING: u64 = 1 << 1;
/// A thread closes the vector and waits until nobody sends.
const AWAITED: u64 = 1 << 2;
/// One thread that is sending; the field has 29 bits.
const SENDER: u64 = 1 << 3;
const SENDERS: u64 = (1 << 32) - SENDER;
const GSI_SHIFT: u32 = 32;

/// A vector's open and pending bits, its senders and its GSI. Has a cache line of its own, as
/// vectors belong to different threads.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct MsixVector(AtomicU64);

/// Result of a message's attempt to enter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// It is to be sent, by this GSI, which stays the vector's until [`MsixVector::leave`].
    Open(Gsi),
    /// It is pending.
    Held,
}

impl MsixVector {
    /// Creates a closed vector with nothing pending.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Enters to send a message, or makes the message pending. Any thread.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let mut word = self.0.load(SeqCst);
        loop {
            let open = word & OPEN != 0;
            let new = if open { word + SENDER } else { word | PENDING };
            match self.0.compare_exchange(word, new, SeqCst, SeqCst) {
                Ok(_) if open => return Entered::Open(Gsi::new((word >> GSI_SHIFT) as u32)),
                Ok(_) => return Entered::Held,
                Err(now) => word = now,
            }
        }
    }

    /// Leaves after the message was sent. [`close`](Self::close) waits on `idle`.
    #[inline]
    pub(crate) fn leave(&self, idle: &WaitQueue) {
        let before = self.0.fetch_sub(SENDER, SeqCst);
        if before & (SENDERS | AWAITED) == SENDER | AWAITED {
            idle.wake();
        }
    }

    /// Opens a closed vector: messages are sent by `gsi` from now on. Returns true if one was
    /// pending, which the caller must send.
    pub(crate) fn open(&self, gsi: Gsi) -> bool {
        let open = u64::from(gsi.get()) << GSI_SHIFT | OPEN;
        self.0.swap(open, SeqCst) & PENDING != 0
    }

    /// Closes the vector and waits for its senders. On return, no thread uses the GSI any more.
    pub(crate) fn close(&self, idle: &WaitQueue) {
        let sends = self.0.fetch_and(!OPEN, SeqCst) & SENDERS != 0;
        if sends {
            self.0.fetch_or(AWAITED, SeqCst);
            // No new senders enter, so this ends when those inside have left.
            idle.wait_until(|| self.0.load(SeqCst) & SENDERS == 0);
            self.0.fetch_and(!AWAITED, SeqCst);
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.0.load(SeqCst) & PENDING != 0
    }

    /// Clears the pending bit without sending.
    pub(crate) fn forget(&self) {
        self.0.fetch_and(!PENDING, SeqCst);
    }
}
