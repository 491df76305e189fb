//! Software's view of a block of 32 vectors: arrivals that wait, and masks. Bit n is vector n.
//!
//! The line's handler, which runs on one CPU at a time, takes arrivals without a lock, while other
//! CPUs mask vectors and make them pending.

use crate::sync::{AtomicU32, SeqCst};

/// A block's arrivals and masks.
#[derive(Default)]
pub(crate) struct Block {
    /// Vectors that arrived, but have not been dispatched yet.
    noted: AtomicU32,
    /// Vectors that are masked at the controller.
    masked: AtomicU32,
    /// Vectors for which the line may interrupt although nothing has arrived: their arrival was
    /// dropped, or software raised the line while its handler took their arrival.
    excused: AtomicU32,
}

impl Block {
    /// Returns the vectors to dispatch: those of the status word and those noted before, without
    /// the masked ones, which are noted.
    #[inline]
    pub(crate) fn take(&self, status: u32) -> u32 {
        let noted = if self.noted.load(SeqCst) == 0 { 0 } else { self.noted.swap(0, SeqCst) };
        let arrived = status | noted;
        let held = arrived & self.masked.load(SeqCst);
        if held == 0 { arrived } else { arrived & !held | self.hold(held) }
    }

    /// Notes masked vectors. Returns those that were unmasked meanwhile: either their unmasking
    /// sees the note, or the second load sees the unmasking.
    #[cold]
    fn hold(&self, held: u32) -> u32 {
        self.noted.fetch_or(held, SeqCst);
        match held & !self.masked.load(SeqCst) {
            0 => 0,
            freed => self.noted.fetch_and(!freed, SeqCst) & freed,
        }
    }

    /// Masks a vector and returns all masked ones.
    pub(crate) fn mask(&self, bit: u32) -> u32 {
        self.masked.fetch_or(bit, SeqCst) | bit
    }

    /// Unmasks a vector and returns the ones that are still masked. The caller must raise the line
    /// if the vector [is noted](Self::is_noted) afterwards.
    pub(crate) fn unmask(&self, bit: u32) -> u32 {
        self.masked.fetch_and(!bit, SeqCst) & !bit
    }

    /// Notes an arrival. Returns `true` if the caller must raise the line; otherwise, unmasking
    /// does.
    #[must_use]
    pub(crate) fn note(&self, bit: u32) -> bool {
        self.noted.fetch_or(bit, SeqCst);
        !self.is_masked(bit)
    }

    /// Drops an arrival that was noted. The caller drops that in the status word afterwards.
    pub(crate) fn forget(&self, bit: u32) {
        self.excuse(bit);
        self.noted.fetch_and(!bit, SeqCst);
    }

    /// Excuses one run of the line's handler that finds nothing.
    pub(crate) fn excuse(&self, bit: u32) {
        self.excused.fetch_or(bit, SeqCst);
    }

    /// Returns `true` if a run that found nothing was excused since the last call.
    #[cold]
    pub(crate) fn is_excused(&self) -> bool {
        self.excused.swap(0, SeqCst) != 0
    }

    pub(crate) fn is_noted(&self, bit: u32) -> bool {
        self.noted.load(SeqCst) & bit != 0
    }

    pub(crate) fn is_masked(&self, bit: u32) -> bool {
        self.masked_vectors() & bit != 0
    }

    pub(crate) fn masked_vectors(&self) -> u32 {
        self.masked.load(SeqCst)
    }
}
