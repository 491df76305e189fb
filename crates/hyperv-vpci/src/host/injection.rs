//! The path of a function's messages: no lock, no allocation, no system call.
//!
//! Each possible data of a message has a word: 0, or the target. A sender counts itself in, loads
//! the word, injects, and counts itself out. A clear of words waits afterwards until all
//! senders that may have loaded the old ones are out. Senders count at one of two counters, so
//! that those who come later prolong nothing:
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

/// The guest's interrupt controller, as a host reaches it.
#[derive(Clone)]
pub enum Injection {
    /// SPIs of a GIC: a message becomes an edge. The data of a message is the SPI.
    Spi(Arc<dyn SetLine>),
    /// Local APICs: a message is translated to one that they take.
    Apic {
        /// The local APICs.
        signal: Arc<dyn SignalMsi<NoIdentity>>,
        /// The message that raises a vector at the processor of a VP index.
        message: fn(processor: u16, vector: u8) -> MsiMessage,
    },
}

impl Injection {
    /// Number of different data that messages have.
    pub(super) fn data_values(&self, quota: u16) -> usize {
        match self {
            Self::Spi(_) => END_OF_SPIS as usize,
            // Groups are aligned, so that twice the quota is enough.
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

/// Target of a message.
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

/// The messages of one function, as its device model sends them.
pub struct FunctionInterrupts {
    injection: Injection,
    address: u64,
    /// By data.
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

    /// Gives data a target, or another one.
    pub(super) fn set(&self, data: u32, target: Target) {
        if let Some(word) = self.targets.get(data as usize) {
            word.store(target.encode(), SeqCst);
        }
    }

    /// The target of data, if it has one.
    pub(super) fn target(&self, data: u32) -> Option<Target> {
        Target::decode(self.targets.get(data as usize)?.load(SeqCst))
    }

    /// Takes data their targets. On return no sender injects to them any more.
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

impl fmt::Debug for FunctionInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionInterrupts").field("address", &self.address).finish_non_exhaustive()
    }
}
