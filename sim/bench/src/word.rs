//! Words that CPUs share. Tests count the accesses to them.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Release, SeqCst},
};

/// A word that a floor accesses. Loads and read-modify-writes are sequentially consistent, as in
/// the model.
pub(crate) trait Word {
    fn new(value: u64) -> Self;
    /// Performs one load.
    fn load(&self) -> u64;
    /// Performs one store with release ordering, because no other CPU writes the word.
    fn store(&self, value: u64);
    /// Performs one read-modify-write. Stores `new` if the word equals `seen`; otherwise returns
    /// `false`.
    fn exchange(&self, seen: u64, new: u64) -> bool;
    /// Sets bits with a single read-modify-write.
    fn set(&self, bits: u64);
    /// Clears bits with a single read-modify-write.
    fn clear(&self, bits: u64);
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    #[inline]
    fn load(&self) -> u64 {
        Self::load(self, SeqCst)
    }

    #[inline]
    fn store(&self, value: u64) {
        Self::store(self, value, Release);
    }

    #[inline]
    fn exchange(&self, seen: u64, new: u64) -> bool {
        self.compare_exchange(seen, new, SeqCst, SeqCst).is_ok()
    }

    #[inline]
    fn set(&self, bits: u64) {
        self.fetch_or(bits, SeqCst);
    }

    #[inline]
    fn clear(&self, bits: u64) {
        self.fetch_and(!bits, SeqCst);
    }
}

/// Returns `count` zero words.
pub(crate) fn zeros<W: Word>(count: u32) -> Box<[W]> {
    (0..count).map(|_| W::new(0)).collect()
}

#[cfg(test)]
pub(crate) mod counted {
    //! Words that count accesses per thread.

    use super::Word;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Number of accesses of each kind.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct Accesses {
        pub(crate) loads: u32,
        /// Number of read-modify-writes.
        pub(crate) rmws: u32,
    }

    thread_local! {
        static ACCESSES: Cell<Accesses> = const { Cell::new(Accesses { loads: 0, rmws: 0 }) };
    }

    /// Returns the result of `work` and the accesses that it made.
    pub(crate) fn accesses<R>(work: impl FnOnce() -> R) -> (R, Accesses) {
        ACCESSES.set(Accesses::default());
        let result = work();
        (result, ACCESSES.get())
    }

    fn count(loads: u32, rmws: u32) {
        let before = ACCESSES.get();
        ACCESSES.set(Accesses { loads: before.loads + loads, rmws: before.rmws + rmws });
    }

    pub(crate) struct Counted(AtomicU64);

    impl Word for Counted {
        fn new(value: u64) -> Self {
            Self(AtomicU64::new(value))
        }

        fn load(&self) -> u64 {
            count(1, 0);
            self.0.load(Relaxed)
        }

        fn store(&self, value: u64) {
            self.0.store(value, Relaxed);
        }

        fn exchange(&self, seen: u64, new: u64) -> bool {
            count(0, 1);
            self.0.compare_exchange(seen, new, Relaxed, Relaxed).is_ok()
        }

        fn set(&self, bits: u64) {
            count(0, 1);
            self.0.fetch_or(bits, Relaxed);
        }

        fn clear(&self, bits: u64) {
            count(0, 1);
            self.0.fetch_and(!bits, Relaxed);
        }
    }
}
