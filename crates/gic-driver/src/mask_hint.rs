//! `ICC_CTLR_EL1.PMHE`: the priority mask as a hint to the distributor.
//!
//! With the hint, a CPU's mask decides where 1-of-N interrupts are sent. A write of `ICC_PMR_EL1`
//! then needs a DSB before it counts there (IHI 0069, `ICC_CTLR_EL1.PMHE`). EL3 may set the bit and
//! keep it from others, so that it is read back.

use core::sync::atomic::{AtomicU8, Ordering};

/// No CPU's control register was read back yet.
const UNKNOWN: u8 = 0;
/// No CPU uses the hint.
const OFF: u8 = 1;
/// A CPU does.
const ON: u8 = 2;

/// Does a CPU use the hint? One that does decides for all.
#[derive(Debug)]
pub(crate) struct MaskHint(AtomicU8);

impl MaskHint {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// Takes in the bit of one CPU, as it read back.
    pub(crate) fn note(&self, pmhe: bool) {
        let state = if pmhe { ON } else { OFF };
        self.0.fetch_max(state, Ordering::Relaxed);
    }

    /// Returns false if a write of the mask needs no barrier.
    #[inline]
    pub(crate) fn is_possible(&self) -> bool {
        self.0.load(Ordering::Relaxed) != OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_needs_no_barrier_once_the_hint_is_off() {
        let hint = MaskHint::new();
        assert!(hint.is_possible(), "before the control register was read back");
        hint.note(false);
        assert!(!hint.is_possible());
    }

    #[test]
    fn one_cpu_with_the_hint_decides_for_all() {
        let hint = MaskHint::new();
        for pmhe in [false, true, false] {
            hint.note(pmhe);
        }
        assert!(hint.is_possible());
    }
}
