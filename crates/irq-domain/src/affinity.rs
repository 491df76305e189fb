//! Which CPU takes an interrupt.

use crate::irq::Irq;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use msi_types::Cpu;

/// Chooses CPUs for new interrupts, and for those whose CPU goes off line. Replaceable by the kernel.
pub trait AffinityPolicy: Send + Sync {
    /// One of `online`, which is never empty and ascends. Anything else counts as the first of them. Task.
    fn choose(&self, online: &[Cpu]) -> Cpu;
}

/// One CPU after the other. The default.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicUsize,
}

impl AffinityPolicy for RoundRobin {
    fn choose(&self, online: &[Cpu]) -> Cpu {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        online.get(turn % online.len().max(1)).copied().unwrap_or_default()
    }
}

/// An affinity change that took effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Where the interrupts are delivered now: their effective affinity.
    pub to: Cpu,
    /// Which interrupts moved: the one asked for, and those of its group where the controller delivers a group
    /// as one (MultiMSI, if the message names the CPU). Empty if it was there already.
    pub irqs: Vec<Irq>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_visits_every_online_cpu_equally() {
        let policy = RoundRobin::default();
        let online = [Cpu::new(0), Cpu::new(3), Cpu::new(7)];
        let chosen: Vec<_> = (0..6).map(|_| policy.choose(&online).get()).collect();
        assert_eq!(chosen, [0, 3, 7, 0, 3, 7]);
    }
}
