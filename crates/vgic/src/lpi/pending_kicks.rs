//! vCPUs to kick once no lock is held.

use crate::sync::{AtomicBool, AtomicU64, Ordering::SeqCst};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};

/// vCPUs whose LPIs commands have made ready, and that may not have been kicked yet.
pub(super) struct PendingKicks {
    vcpus: Box<[AtomicU64]>,
    /// `true` if a bit may be set in `vcpus`.
    is_any: AtomicBool,
}

impl PendingKicks {
    pub(super) fn new(vcpus: u16) -> Result<Self, OutOfMemory> {
        let words = (0..usize::from(vcpus).div_ceil(64)).map(|_| AtomicU64::new(0));
        Ok(Self { vcpus: try_boxed_slice(words)?, is_any: AtomicBool::new(false) })
    }

    /// Adds a vCPU. Callers must [`take`](Self::take) afterwards.
    pub(super) fn insert(&self, vcpu: u32) {
        if let Some(bits) = self.vcpus.get((vcpu / 64) as usize) {
            bits.fetch_or(1 << (vcpu % 64), SeqCst);
            self.is_any.store(true, SeqCst);
        }
    }

    /// Removes all vCPUs, and calls `kick` for each.
    #[inline]
    pub(super) fn take(&self, kick: impl Fn(u32)) {
        if self.is_any.load(SeqCst) && self.is_any.swap(false, SeqCst) {
            for (bits, base) in self.vcpus.iter().zip((0..).step_by(64)) {
                let mut bits = bits.swap(0, SeqCst);
                while bits != 0 {
                    kick(base + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }
}
