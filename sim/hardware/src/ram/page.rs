//! A page of RAM, together with the CPUs' cached copies of its words.

use crate::lock::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of words in a page.
const WORDS: usize = 8192;

/// The bus masters that snoop the CPU caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caches {
    /// All masters snoop, so a store is visible immediately.
    Snooped,
    /// No master snoops, so a store is visible once it has been cleaned.
    Hidden,
    /// Some masters snoop, so a store is visible to them after a barrier, and to all masters after
    /// a clean.
    SnoopedBySome,
}

/// A 64 KiB page.
pub(super) struct Page {
    /// The words in memory, as seen by non-snooping masters.
    words: Box<[AtomicU64]>,
    /// The words that a CPU has stored but not yet cleaned.
    dirty: Mutex<BTreeMap<usize, u64>>,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(), dirty: Mutex::default() }
    }

    pub(super) fn load(&self, word: usize) -> u64 {
        self.words.get(word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(super) fn store(&self, word: usize, value: u64) {
        if let Some(word) = self.words.get(word) {
            word.store(value, Ordering::Release);
        }
    }

    /// Changes a word in memory.
    pub(super) fn update(&self, word: usize, change: impl Fn(u64) -> u64) {
        if let Some(word) = self.words.get(word) {
            word.update(Ordering::AcqRel, Ordering::Acquire, change);
        }
    }

    /// Changes a word as the CPUs see it.
    pub(super) fn cpu_update(&self, word: usize, caches: Caches, change: impl Fn(u64) -> u64) {
        if caches == Caches::Snooped {
            self.update(word, change);
            return;
        }
        let mut dirty = lock(&self.dirty);
        let seen = dirty.get(&word).copied().unwrap_or_else(|| self.load(word));
        dirty.insert(word, change(seen));
    }

    /// Returns a word as the CPUs see it.
    pub(super) fn cpu_load(&self, word: usize) -> u64 {
        lock(&self.dirty).get(&word).copied().unwrap_or_else(|| self.load(word))
    }

    /// Cleans a word: writes the CPUs' copy back to memory.
    pub(super) fn clean(&self, word: usize) {
        let mut dirty = lock(&self.dirty);
        if let Some(value) = dirty.remove(&word) {
            self.store(word, value);
        }
    }

    /// Sets a word for every observer.
    pub(super) fn reset(&self, word: usize, value: u64) {
        lock(&self.dirty).remove(&word);
        self.store(word, value);
    }
}
