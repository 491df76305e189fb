//! Policies that choose a CPU for an interrupt.

use crate::number::Irq;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use msi_types::{Cpu, HwIrq, RequesterId};

/// The interrupt that a policy places, and the CPUs that it may choose.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Placement<'a> {
    /// The online CPUs to choose from, in ascending order. Never empty.
    pub online: &'a [Cpu],
    /// Name of the device's domain; `None` for a wired interrupt.
    pub device: Option<&'a str>,
    /// The device's requester ID; `None` for a wired interrupt.
    pub requester: Option<RequesterId>,
    /// The vector. For a group whose vectors move together, this is one of them.
    pub vector: PlacedVector,
    /// `true` if the interrupt is [managed](crate::MsiDevice::allocate_managed). The core itself
    /// chooses a managed interrupt's first CPU and moves it when its CPU goes offline, so it only
    /// asks when the kernel restricts the interrupt to a part of its CPUs.
    pub managed: bool,
}

/// A vector as a policy knows it: new device vectors are placed before the controller numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PlacedVector {
    /// Slot in the device's message store.
    Slot(u16),
    /// A wired interrupt's number at the root controller.
    Wired(HwIrq),
}

/// A policy that chooses CPUs for new interrupts, and for interrupts whose CPU goes offline.
/// Kernels can supply their own policy.
pub trait AffinityPolicy: Send + Sync {
    /// Chooses one of [`Placement::online`]. If the result isn't one of these CPUs, the core uses
    /// the first one.
    ///
    /// Context: task; may sleep.
    fn choose(&self, of: &Placement<'_>) -> Cpu;
}

/// The default policy: round-robin over the online CPUs.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicUsize,
}

impl AffinityPolicy for RoundRobin {
    fn choose(&self, Placement { online, .. }: &Placement<'_>) -> Cpu {
        let turn = self.next.fetch_add(1, Ordering::SeqCst);
        online.get(turn % online.len().max(1)).copied().unwrap_or_default()
    }
}

/// Distributes `cpus` over `vectors` vectors as evenly as possible: the number of vectors varies by
/// at most one between CPUs, and the number of CPUs by at most one between vectors. For example, a
/// device can [manage](crate::MsiDevice::allocate_managed) one queue per set. With fewer vectors
/// than CPUs, each vector has CPUs that are adjacent in `cpus`; with more, several vectors share a
/// CPU. To keep each queue's CPUs on one NUMA node, order `cpus` by node. Returns an empty iterator
/// if `cpus` is empty.
///
/// ```
/// use irq_domain::spread;
/// use msi_types::Cpu;
///
/// let cpus = [0, 1, 2, 3, 4].map(Cpu::new);
/// assert!(spread(2, &cpus).eq([&cpus[..2], &cpus[2..]]));
/// assert!(spread(6, &cpus[..2]).flatten().eq(&[0, 0, 0, 1, 1, 1].map(Cpu::new)));
/// ```
pub fn spread(vectors: u16, cpus: &[Cpu]) -> impl ExactSizeIterator<Item = &[Cpu]> {
    let begin = move |vector: u16| usize::from(vector) * cpus.len() / usize::from(vectors);
    let share = move |vector| {
        let end = begin(vector + 1).max(begin(vector) + 1);
        cpus.get(begin(vector)..end).unwrap_or_default()
    };
    (0..if cpus.is_empty() { 0 } else { vectors }).map(share)
}

/// An affinity change that took effect.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Moved {
    /// The interrupts' new effective affinity.
    pub to: Cpu,
    /// `false` if the interrupt already had this affinity.
    pub is_new: bool,
    /// The interrupts that moved together with the requested one: a Multi-MSI group whose message
    /// encodes the target CPU can only move as a whole, and a chained controller's vectors follow
    /// its line.
    pub others: Vec<Irq>,
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_visits_every_online_cpu_equally() {
        let policy = RoundRobin::default();
        let online = [Cpu::new(0), Cpu::new(3), Cpu::new(7)];
        let place = Placement {
            online: &online,
            device: None,
            requester: None,
            vector: PlacedVector::Wired(HwIrq::new(40)),
            managed: false,
        };
        let chosen: Vec<_> = (0..6).map(|_| policy.choose(&place).get()).collect();
        assert_eq!(chosen, [0, 3, 7, 0, 3, 7]);
    }

    #[test]
    fn spread_assigns_cpus_evenly_to_within_one() {
        for cpus in 1..20 {
            let all: Vec<_> = (0..cpus).map(Cpu::new).collect();
            for vectors in 1..40 {
                let shares: Vec<_> = spread(vectors, &all).collect();
                assert_eq!(shares.len(), usize::from(vectors));
                let sizes = shares.iter().map(|share| share.len());
                assert!(sizes.clone().min().unwrap() >= 1);
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
                let uses = all
                    .iter()
                    .map(|cpu| shares.iter().copied().flatten().filter(|at| *at == cpu).count());
                assert!(uses.clone().min().unwrap() >= 1);
                assert!(uses.clone().max().unwrap() - uses.min().unwrap() <= 1);
            }
        }
        assert_eq!(spread(3, &[]).len(), 0);
        assert_eq!(spread(0, &[Cpu::new(0)]).len(), 0);
    }
}
