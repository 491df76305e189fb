//! Software's view of a block of 32 vectors: arrivals that wait, and masks. Bit n is vector n.
//!
//! The line's handler, which runs on one CPU at a time, takes arrivals without a lock, while other
//! CPUs mask vectors and make them pending.

use crate::sync::{AtomicU32, AtomicU64, SeqCst};

/// Position of the masks in a [`Block`]'s word.
const MASKS: u32 = 32;

/// A block's arrivals and masks.
#[derive(Default)]
pub(crate) struct Block {
    /// Bits 0 to 31: vectors that arrived, but have not been dispatched yet. Bits 32 to 63: vectors
    /// that are masked at the controller.
    word: AtomicU64,
    /// Number of times that the line may interrupt although nothing has arrived: an arrival was
    /// dropped, or software raised the line while its handler took the arrival.
    excuses: AtomicU32,
}

/// Maximum number of excuses that a block keeps. Few CPUs raise a line at the same time, and most
/// excuses are left over, because the run that follows finds an arrival.
const MOST_EXCUSES: u32 = 32;

impl Block {
    /// Returns the vectors to dispatch: those of the status word and those noted before, without
    /// the masked ones, which are noted.
    #[inline]
    pub(crate) fn take(&self, status: u32) -> u32 {
        let seen = self.word.load(SeqCst);
        if seen == 0 { status } else { self.take_unmasked(status, seen) }
    }

    #[cold]
    #[inline(never)]
    fn take_unmasked(&self, status: u32, mut seen: u64) -> u32 {
        loop {
            let masked = masks(seen);
            let arrived = status | noted(seen);
            let left = u64::from(arrived & masked) | mask_bits(masked);
            match self.word.compare_exchange_weak(seen, left, SeqCst, SeqCst) {
                Ok(_) => {
                    // The line interrupted for a vector that is masked, so not for nothing.
                    if status != 0 && arrived & !masked == 0 {
                        self.excuse();
                    }
                    return arrived & !masked;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Masks a vector and returns all masked ones.
    pub(crate) fn mask(&self, bit: u32) -> u32 {
        masks(self.word.fetch_or(mask_bits(bit), SeqCst)) | bit
    }

    /// Unmasks a vector and returns the ones that are still masked. The caller must raise the line
    /// if the vector [is noted](Self::is_noted) afterwards.
    pub(crate) fn unmask(&self, bit: u32) -> u32 {
        masks(self.word.fetch_and(!mask_bits(bit), SeqCst)) & !bit
    }

    /// Notes an arrival. Returns `true` if the caller must raise the line; otherwise, unmasking
    /// does.
    #[must_use]
    pub(crate) fn note(&self, bit: u32) -> bool {
        masks(self.word.fetch_or(u64::from(bit), SeqCst)) & bit == 0
    }

    /// Drops an arrival that was noted. The caller drops that in the status word afterwards.
    pub(crate) fn forget(&self, bit: u32) {
        self.excuse();
        self.word.fetch_and(!u64::from(bit), SeqCst);
    }

    /// Excuses one run of the line's handler that finds nothing.
    pub(crate) fn excuse(&self) {
        if self.excuses.load(SeqCst) < MOST_EXCUSES {
            self.excuses.fetch_add(1, SeqCst);
        }
    }

    /// Uses up an excuse for a run that found nothing. Returns `false` if there is none. Other
    /// excuses stay, because another CPU may be about to raise the line.
    #[cold]
    pub(crate) fn is_excused(&self) -> bool {
        let is_excused = self.excuses.load(SeqCst) != 0;
        if is_excused {
            self.excuses.fetch_sub(1, SeqCst);
        }
        is_excused
    }

    pub(crate) fn is_noted(&self, bit: u32) -> bool {
        noted(self.word.load(SeqCst)) & bit != 0
    }

    pub(crate) fn is_masked(&self, bit: u32) -> bool {
        self.masked_vectors() & bit != 0
    }

    pub(crate) fn masked_vectors(&self) -> u32 {
        masks(self.word.load(SeqCst))
    }
}

#[inline]
fn noted(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

#[inline]
fn masks(word: u64) -> u32 {
    (word >> MASKS) as u32
}

#[inline]
fn mask_bits(masked: u32) -> u64 {
    u64::from(masked) << MASKS
}
