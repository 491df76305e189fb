//! `ICC_CTLR_EL1.PMHE`: use of the priority mask as a hint to the distributor.
//!
//! With the hint, a CPU's priority mask influences the CPU to which a 1-of-N interrupt is sent. The
//! distributor is then guaranteed to observe a write of `ICC_PMR_EL1` only after a DSB (IHI 0069,
//! `ICC_CTLR_EL1.PMHE`). EL3 may set the bit and prevent lower levels from changing it, so the
//! driver reads it back.

use core::sync::atomic::{AtomicU8, Ordering};

/// No CPU's control register has been read back yet.
const UNKNOWN: u8 = 0;
/// None of the CPUs seen so far uses the hint.
const OFF: u8 = 1;
/// At least one CPU uses the hint.
const ON: u8 = 2;

/// Tracks whether any CPU uses the hint. If one does, all CPUs execute the barrier after writing
/// the mask.
#[derive(Debug)]
pub(crate) struct MaskHint(AtomicU8);

impl MaskHint {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// Records the value of `PMHE` that a CPU read back.
    pub(crate) fn note(&self, pmhe: bool) {
        let state = if pmhe { ON } else { OFF };
        self.0.fetch_max(state, Ordering::SeqCst);
    }

    /// Returns `false` if mask writes need no barrier.
    #[inline]
    pub(crate) fn is_possible(&self) -> bool {
        // Ordering: every mask write performs this load, no other memory depends on the value, and
        // no ordering can prevent another CPU from recording its `PMHE` just after this load.
        self.0.load(Ordering::Relaxed) != OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_masking_needs_no_barrier_once_pmhe_reads_zero() {
        let hint = MaskHint::new();
        assert!(hint.is_possible(), "before the control register was read back");
        hint.note(false);
        assert!(!hint.is_possible());
    }

    #[test]
    fn pmhe_on_one_cpu_requires_the_barrier_on_every_cpu() {
        let hint = MaskHint::new();
        for pmhe in [false, true, false] {
            hint.note(pmhe);
        }
        assert!(hint.is_possible());
    }
}
