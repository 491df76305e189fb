//! Permission to use a redistributor's registers. They are not accessed once the redistributor
//! sleeps.

use core::sync::atomic::{AtomicU32, Ordering};

/// Users of the registers are counted in the low bits.
const ONE_USER: u32 = 1;
/// The registers may be used.
const OPEN: u32 = 1 << 30;
/// LPIs may be placed here.
const ACCEPTING: u32 = 1 << 31;
const USERS: u32 = OPEN - 1;

/// The permission to use one redistributor's registers; closed at first.
///
/// A user checks that access is open and counts itself in one atomic step. After
/// [`close`](Self::close) nobody enters, so the count falls to zero.
#[derive(Debug, Default)]
pub(crate) struct RegisterAccess(AtomicU32);

/// The right to use the registers, until it is dropped.
#[derive(Debug)]
pub(crate) struct RegisterGuard<'a>(&'a RegisterAccess);

impl RegisterAccess {
    /// The redistributor is awake. Nothing is placed there yet.
    pub(crate) fn open(&self) {
        self.0.fetch_or(OPEN, Ordering::SeqCst);
    }

    /// Its LPIs work: they may be placed there.
    pub(crate) fn accept(&self) {
        self.0.fetch_or(ACCEPTING, Ordering::SeqCst);
    }

    /// No LPI is placed there any more. LPIs that were placed before are in the records.
    pub(crate) fn refuse(&self) {
        self.0.fetch_and(!ACCEPTING, Ordering::SeqCst);
    }

    /// Admits no further user. Earlier users may still hold a [guard](Self::is_used).
    pub(crate) fn close(&self) {
        self.0.fetch_and(USERS, Ordering::SeqCst);
    }

    pub(crate) fn accepts(&self) -> bool {
        self.0.load(Ordering::SeqCst) & ACCEPTING != 0
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst) & OPEN != 0
    }

    pub(crate) fn is_used(&self) -> bool {
        self.0.load(Ordering::SeqCst) & USERS != 0
    }

    /// `None` if it is closed.
    pub(crate) fn enter(&self) -> Option<RegisterGuard<'_>> {
        let enter = |word: u32| (word & OPEN != 0).then_some(word + ONE_USER);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).ok()?;
        Some(RegisterGuard(self))
    }
}

impl Drop for RegisterGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(ONE_USER, Ordering::SeqCst);
    }
}
