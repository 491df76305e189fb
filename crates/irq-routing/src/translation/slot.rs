//! The lock-free parts of a translator: copies of translations, and counts of messages.
//!
//! Threads read a copy ([`Slot`]) while one thread changes it. A writer makes the version odd, stores the words, and makes the version even again. A reader
//! that meets a writer finds no copy, and asks the IOMMU instead of waiting.
//!
//! Messages that are being sent are counted in two phases ([`Crossing`]). The phase and both counts
//! share one word, so that a message is always counted in the phase in which it started. A drain
//! starts the other phase, and waits only for messages of the old one: devices that keep sending
//! cannot delay it.

use crate::lock::WaitQueue;
use crate::sync::{AtomicU64, SeqCst};
use msi_types::DeviceId;

/// A translation of one address for one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    pub(crate) device: DeviceId,
    pub(crate) iova: u64,
    pub(crate) address: u64,
}

/// Bit of the device's word that is set if the slot has a copy.
const VALID: u64 = 1 << 32;

#[derive(Debug)]
pub(crate) struct Slot {
    /// Number of changes that have started or ended.
    version: AtomicU64,
    device: AtomicU64,
    iova: AtomicU64,
    address: AtomicU64,
}

impl Slot {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { version: zero(), device: zero(), iova: zero(), address: zero() }
    }

    /// Stores a copy, or none. Callers must ensure that only one thread stores at a time.
    pub(crate) fn store(&self, mapping: Option<Mapping>) {
        let none = Mapping { device: DeviceId::new(0), iova: 0, address: 0 };
        let valid = if mapping.is_some() { VALID } else { 0 };
        let Mapping { device, iova, address } = mapping.unwrap_or(none);
        let version = self.version.load(SeqCst);
        self.version.store(version | 1, SeqCst);
        self.device.store(valid | u64::from(device.get()), SeqCst);
        self.iova.store(iova, SeqCst);
        self.address.store(address, SeqCst);
        self.version.store(version.wrapping_add(2), SeqCst);
    }

    /// Returns the copy, or `None` if there is none or it is being changed.
    pub(crate) fn load(&self) -> Option<Mapping> {
        let version = self.version.load(SeqCst);
        let device = self.device.load(SeqCst);
        let (iova, address) = (self.iova.load(SeqCst), self.address.load(SeqCst));
        let is_stable = version & 1 == 0 && self.version.load(SeqCst) == version;
        let device = u32::try_from(device ^ VALID).ok().filter(|_| is_stable)?;
        Some(Mapping { device: DeviceId::new(device), iova, address })
    }

    /// Returns `true` if the slot has no copy.
    pub(crate) fn is_free(&self) -> bool {
        self.device.load(SeqCst) & VALID == 0
    }
}

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
