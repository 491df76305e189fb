//! Counts of the messages that are being sent, in two phases.
//!
//! The phase and both counts share one word, so that a message is always counted in the phase in
//! which it started. A drain starts the other phase, and waits only for messages of the old one:
//! devices that keep sending cannot delay it.

use crate::lock::WaitQueue;
use crate::sync::{AtomicU64, SeqCst};

/// Bit of the current phase.
const PHASE: u64 = 1;
/// Bit that is set while a thread drains a phase.
const AWAITED: u64 = 1 << 1;
/// Lowest bits of the counts of both phases, which have 31 bits each.
const UNITS: [u64; 2] = [1 << 2, 1 << 33];
const COUNT: u64 = (1 << 31) - 1;

#[derive(Debug)]
pub(crate) struct Crossing(AtomicU64);

/// A message that is being sent. Dropping it ends the count.
pub(crate) struct Pass<'a> {
    crossing: &'a Crossing,
    idle: &'a WaitQueue,
    unit: u64,
}

impl Crossing {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts a message in the current phase. `idle` must be the queue that
    /// [`drain`](Self::drain) waits on.
    ///
    /// Context: any.
    pub(crate) fn enter<'a>(&'a self, idle: &'a WaitQueue) -> Pass<'a> {
        let mut word = self.0.load(SeqCst);
        loop {
            let unit = unit(word);
            match self.0.compare_exchange(word, word + unit, SeqCst, SeqCst) {
                Ok(_) => return Pass { crossing: self, idle, unit },
                Err(now) => word = now,
            }
        }
    }

    /// Starts a new phase, and waits until all messages of the old one have been sent. Callers must
    /// ensure that only one thread drains at a time.
    pub(crate) fn drain(&self, idle: &WaitQueue) {
        let before = self.0.fetch_xor(PHASE, SeqCst);
        let sending = COUNT * unit(before);
        if before & sending != 0 {
            self.0.fetch_or(AWAITED, SeqCst);
            idle.wait_until(|| self.0.load(SeqCst) & sending == 0);
            self.0.fetch_and(!AWAITED, SeqCst);
        }
    }
}

fn unit(word: u64) -> u64 {
    let [even, odd] = UNITS;
    if word & PHASE == 0 { even } else { odd }
}

impl Pass<'_> {
    /// Returns the lowest bit of the count of the message's phase.
    #[cfg(all(test, shuttle))]
    pub(crate) fn unit(&self) -> u64 {
        self.unit
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let before = self.crossing.0.fetch_sub(self.unit, SeqCst);
        // An invalidation awaits messages of the phase before the current one.
        let is_last = unit(before) != self.unit && before & (COUNT * self.unit) == self.unit;
        if before & AWAITED != 0 && is_last {
            self.idle.wake();
        }
    }
}
