//! Injects a function's messages without a lock, an allocation or a system call.
//!
//! Each possible value of a message's data has a word that holds its target, or 0. A sender
//! increments a counter, loads the word, injects the interrupt and decrements the counter. After a
//! thread has cleared words, it waits for all senders that might have loaded the old values. Two
//! counters are used in turn, so that later senders don't prolong the wait:
//!
//! ```text
//! sender: parity ─▶ counter[parity] += 1 ─▶ load the word ─▶ inject ─▶ counter[parity] -= 1
//! clear:  store 0 ─▶ twice: flip the parity, wait until the old parity's counter is 0
//! ```

use super::{HostConfig, HostError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use msi_types::{Delivery, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};

/// The guest's interrupt controller, into which messages are injected.
#[derive(Clone)]
pub enum Injection {
    /// A GIC's SPIs. A message's data is the INTID of an SPI, and the message is injected as an
    /// edge on that SPI.
    Spi(Arc<dyn SetLine>),
    /// Local APICs. Each message is translated into the local APICs' format.
    Apic {
        /// The local APICs.
        signal: Arc<dyn SignalMsi<NoIdentity>>,
        /// Returns the message that raises a vector on the processor with this VP index.
        message: fn(processor: u16, vector: u8) -> MsiMessage,
    },
}

impl Injection {
    /// Returns the number of different data values that messages can have.
    pub(super) fn data_values(&self, quota: u16) -> usize {
        match self {
            Self::Spi(_) => END_OF_SPIS as usize,
            // A group's data is aligned to the size of the group, so twice the quota is enough.
            Self::Apic { .. } => usize::from(quota) * 2 + 64,
        }
    }
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spi(_) => "Spi(..)",
            Self::Apic { .. } => "Apic(..)",
        })
    }
}

/// INTID after the last SPI (IHI 0069 §2.2).
pub(super) const END_OF_SPIS: u32 = 1020;

/// A message's target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) vector: u32,
    pub(super) processor: u16,
}

impl Target {
    const VALID: u64 = 1 << 63;

    fn encode(self) -> u64 {
        Self::VALID | u64::from(self.processor) << 32 | u64::from(self.vector)
    }

    fn decode(word: u64) -> Option<Self> {
        let [v0, v1, v2, v3, p0, p1, ..] = word.to_le_bytes();
        let vector = u32::from_le_bytes([v0, v1, v2, v3]);
        let processor = u16::from_le_bytes([p0, p1]);
        (word & Self::VALID != 0).then_some(Self { vector, processor })
    }
}

/// Sends one function's messages on behalf of its device model.
pub struct FunctionInterrupts {
    injection: Injection,
    address: u64,
    /// Encoded targets, indexed by data.
    targets: Vec<AtomicU64>,
    parity: AtomicU32,
    senders: [AtomicU32; 2],
}

impl FunctionInterrupts {
    pub(super) fn new(config: &HostConfig, injection: Injection) -> Result<Self, HostError> {
        let count = injection.data_values(config.quota);
        let mut targets = Vec::new();
        targets.try_reserve_exact(count).map_err(|_| HostError::NoMemory)?;
        targets.resize_with(count, AtomicU64::default);
        let (parity, senders) = (AtomicU32::new(0), Default::default());
        Ok(Self { injection, address: config.address, targets, parity, senders })
    }

    /// Sets or changes a message's target.
    pub(super) fn set(&self, data: u32, target: Target) {
        if let Some(word) = self.targets.get(data as usize) {
            word.store(target.encode(), SeqCst);
        }
    }

    /// Returns a message's target, if it has one.
    pub(super) fn target(&self, data: u32) -> Option<Target> {
        Target::decode(self.targets.get(data as usize)?.load(SeqCst))
    }

    /// Removes messages' targets. On return, no thread is injecting interrupts for these messages.
    pub(super) fn clear(&self, data: impl Iterator<Item = u32>) {
        data.filter_map(|data| self.targets.get(data as usize))
            .for_each(|word| word.store(0, SeqCst));
        for _ in 0..2 {
            let old = self.parity.fetch_xor(1, SeqCst);
            while self.counter(old).load(SeqCst) != 0 {
                core::hint::spin_loop();
            }
        }
    }

    fn counter(&self, parity: u32) -> &AtomicU32 {
        let [even, odd] = &self.senders;
        if parity & 1 == 0 { even } else { odd }
    }

    fn inject(&self, target: Target) -> Delivery {
        match &self.injection {
            Injection::Spi(lines) => lines.pulse(Line::Spi(target.vector)),
            Injection::Apic { signal, message } => match u8::try_from(target.vector) {
                Ok(vector) => signal.signal_msi(NoIdentity, message(target.processor, vector)),
                Err(_) => Delivery::Blocked,
            },
        }
    }
}

impl SignalMsi<NoIdentity> for FunctionInterrupts {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        if message.address != self.address {
            return Delivery::NoDoorbell;
        }
        let Some(word) = self.targets.get(message.data as usize) else { return Delivery::Blocked };
        let counter = self.counter(self.parity.load(SeqCst));
        counter.fetch_add(1, SeqCst);
        let delivery =
            Target::decode(word.load(SeqCst)).map_or(Delivery::Blocked, |to| self.inject(to));
        counter.fetch_sub(1, SeqCst);
        delivery
    }
}

msi_types::debug_by!(FunctionInterrupts as "FunctionInterrupts", |it| {address: it.address});
