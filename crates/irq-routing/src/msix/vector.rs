//! Whether a vector may send: what a device's threads and the guest's mask bits meet in. One word holds it all, so that
//! a message is either sent while the vector is open, or held as pending, and neither is decided by half.

use crate::atomic::{self, AtomicU64, SeqCst};
use crate::safeguard::Safeguard;
use msi_types::Gsi;

/// Messages are sent.
const OPEN: u64 = 1;
/// A message waits until the vector is opened.
const PENDING: u64 = 1 << 1;
/// One thread that is sending; the field has 30 bits.
const SENDER: u64 = 1 << 2;
const SENDERS: u64 = (1 << 32) - SENDER;
const GSI_SHIFT: u32 = 32;

/// In a cache line of its own, as vectors belong to different threads.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Vector(AtomicU64);

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// It is to be sent, by this GSI, which stays the vector's until [`Vector::leave`].
    Open(Gsi),
    /// It is pending.
    Held,
}

impl Vector {
    /// Closed, nothing pending.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A message comes. Any thread.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let mut word = self.0.load(SeqCst);
        loop {
            let open = word & OPEN != 0;
            if !open && !Safeguard::HoldByExchange.stands() {
                self.0.fetch_or(PENDING, SeqCst);
                return Entered::Held;
            }
            let new = if open { word + SENDER } else { word | PENDING };
            match self.0.compare_exchange(word, new, SeqCst, SeqCst) {
                Ok(_) if open => return Entered::Open(Gsi::new((word >> GSI_SHIFT) as u32)),
                Ok(_) => return Entered::Held,
                Err(now) => word = now,
            }
        }
    }

    /// The message was sent.
    #[inline]
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(SENDER, SeqCst);
    }

    /// Messages are sent by `gsi` from now on. Whether one was pending, which the caller has to send. The vector is
    /// closed.
    pub(crate) fn open(&self, gsi: Gsi) -> bool {
        let open = u64::from(gsi.get()) << GSI_SHIFT | OPEN;
        self.0.swap(open, SeqCst) & PENDING != 0
    }

    /// Holds messages back. On return, those that were being sent are sent, and nobody uses the GSI any more.
    pub(crate) fn close(&self) {
        let mut word = self.0.fetch_and(!OPEN, SeqCst);
        // No new senders come, so this ends when those that were interrupted go on.
        while word & SENDERS != 0 && Safeguard::AwaitSenders.stands() {
            atomic::relax();
            word = self.0.load(SeqCst);
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.0.load(SeqCst) & PENDING != 0
    }

    /// What is pending is not sent any more.
    pub(crate) fn forget(&self) {
        self.0.fetch_and(!PENDING, SeqCst);
    }
}
