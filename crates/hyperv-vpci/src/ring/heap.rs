//! A ring between two ends in the same process.

use super::{Control, PAGE, RingMemory};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU8;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A ring's memory, on the heap. Clones share it.
#[derive(Clone, Debug)]
pub struct HeapRing(Arc<Pages>);

#[derive(Debug)]
struct Pages {
    control: [AtomicU32; 17],
    data: Vec<AtomicU64>,
}

impl HeapRing {
    /// Creates a ring with this number of data pages, all zeros.
    ///
    /// # Errors
    /// Returns an error if the heap is exhausted.
    pub fn new(pages: NonZeroU8) -> Result<Self, TryReserveError> {
        let words = usize::from(pages.get()) * (PAGE as usize / 8);
        let mut data = Vec::new();
        data.try_reserve_exact(words)?;
        data.resize_with(words, AtomicU64::default);
        Ok(Self(Arc::new(Pages { control: Default::default(), data })))
    }

    fn word(&self, word: Control) -> Option<&AtomicU32> {
        self.0.control.get(word.offset() as usize / 4)
    }
}

impl RingMemory for HeapRing {
    fn length(&self) -> u32 {
        // A ring has at most 255 pages, so the length fits.
        u32::try_from(self.0.data.len() * 8).unwrap_or(0)
    }

    fn control(&self, word: Control) -> u32 {
        self.word(word).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    fn set_control(&self, word: Control, value: u32) {
        if let Some(word) = self.word(word) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn data(&self, offset: u32) -> [u8; 8] {
        // Ordering: the control words, which are sequentially consistent, order the data. A peer
        // that breaks the rules may change the data at any time, so readers copy and check it.
        let word = self.0.data.get(offset as usize / 8);
        word.map_or([0; 8], |word| word.load(Ordering::Relaxed).to_ne_bytes())
    }

    fn set_data(&self, offset: u32, bytes: [u8; 8]) {
        // Ordering: as for loads.
        if let Some(word) = self.0.data.get(offset as usize / 8) {
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }
}
