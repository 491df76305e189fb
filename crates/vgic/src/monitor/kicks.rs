//! Set of kicked vCPUs.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use msi_types::{Cpu, Kick};

/// Set of kicked vCPUs, for a VMM whose GIC interface returns the vCPUs to wake.
///
/// After each call that may signal an interrupt, on any thread, the VMM must [`take`](Self::take)
/// the kicks and wake these vCPUs. Otherwise, a vCPU sleeps over its interrupt. A thread
/// may take kicks that another thread's call caused, and must wake those vCPUs too.
///
/// ```
/// use msi_types::{Cpu, Kick};
/// use vgic::KickSet;
///
/// let kicks = KickSet::new(70)?;
/// kicks.kick(Cpu::new(69));
/// kicks.kick(Cpu::new(3));
/// assert!(kicks.take().eq([Cpu::new(3), Cpu::new(69)]));
/// assert_eq!(kicks.take().next(), None);
/// # Ok::<(), vgic::OutOfMemory>(())
/// ```
#[derive(Debug)]
pub struct KickSet(Box<[AtomicU64]>);

impl KickSet {
    /// Creates an empty set for this many vCPUs.
    ///
    /// # Errors
    /// Returns an error if the heap is exhausted.
    pub fn new(vcpus: u16) -> Result<Self, OutOfMemory> {
        let words = (0..vcpus.div_ceil(64)).map(|_| AtomicU64::new(0));
        Ok(Self(try_boxed_slice(words)?))
    }

    /// Removes the kicked vCPUs from the set, and returns them in ascending order, each once. A
    /// vCPU that the iterator has not reached, or that is kicked meanwhile, stays in the set.
    ///
    /// Context: any.
    pub fn take(&self) -> impl Iterator<Item = Cpu> {
        (0..).step_by(64).zip(&self.0).flat_map(|(base, word)| {
            let mut bits = word.load(SeqCst);
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= !(1 << bit);
                let taken = word.fetch_and(!(1 << bit), SeqCst);
                Some((taken & 1 << bit != 0).then(|| Cpu::new(base + bit)))
            })
            .flatten()
        })
    }
}

impl Kick for KickSet {
    fn kick(&self, cpu: Cpu) {
        if let Some(word) = self.0.get(cpu.index() / 64) {
            word.fetch_or(1 << (cpu.index() % 64), SeqCst);
        }
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_kicked_meanwhile_stays_in_the_set() {
        let kicks = KickSet::new(70).unwrap();
        let kick = |cpus: [u32; 3]| cpus.map(|cpu| kicks.kick(Cpu::new(cpu)));
        kick([1, 5, 69]);
        let taken = kicks.take().inspect(|_| _ = kick([1, 2, 3]));
        assert!(taken.eq([1, 5, 69].map(Cpu::new)));
        assert!(kicks.take().eq([1, 2, 3].map(Cpu::new)));
    }
}
