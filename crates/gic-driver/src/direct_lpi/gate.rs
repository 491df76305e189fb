//! Whether a CPU's redistributor may be used: it may not once it sleeps.

use core::sync::atomic::{AtomicU32, Ordering};

/// Users of the registers are counted in the low bits.
const ONE_USER: u32 = 1;
/// The registers may be used.
const OPEN: u32 = 1 << 30;
/// LPIs may be placed here.
const ACCEPTING: u32 = 1 << 31;
const USERS: u32 = OPEN - 1;

/// The gate to one redistributor. Closed at first.
///
/// Whoever wants to use the registers counts itself in one step with finding the gate open, so that
/// whoever closes it waits for those who are inside, and nobody follows them.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU32);

/// The right to use the registers, until it is dropped.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a Gate);

impl Gate {
    /// The redistributor is awake. Nothing is placed there yet.
    pub(super) fn open(&self) {
        self.0.fetch_or(OPEN, Ordering::SeqCst);
    }

    /// Its LPIs work: they may be placed there.
    pub(super) fn accept(&self) {
        self.0.fetch_or(ACCEPTING, Ordering::SeqCst);
    }

    /// Nothing is placed there any more. Placements that saw it accepting before are in the
    /// records.
    pub(super) fn refuse(&self) {
        self.0.fetch_and(!ACCEPTING, Ordering::SeqCst);
    }

    /// Nobody enters any more; those who are inside still [are](Self::is_used).
    pub(super) fn close(&self) {
        self.0.fetch_and(USERS, Ordering::SeqCst);
    }

    pub(super) fn accepts(&self) -> bool {
        self.0.load(Ordering::SeqCst) & ACCEPTING != 0
    }

    pub(super) fn is_used(&self) -> bool {
        self.0.load(Ordering::SeqCst) & USERS != 0
    }

    /// `None` if it is closed.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        let enter = |word: u32| (word & OPEN != 0).then_some(word + ONE_USER);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).ok()?;
        Some(Inside(self))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(ONE_USER, Ordering::SeqCst);
    }
}
