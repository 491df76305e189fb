//! Permission to use a redistributor's registers, which must not be accessed while the
//! redistributor sleeps.

use core::sync::atomic::{AtomicU32, Ordering};

/// Increment for one user. The low bits of the word count the users.
const ONE_USER: u32 = 1;
/// Set while the registers may be used.
const OPEN: u32 = 1 << 30;
/// Set while LPIs may be routed to this redistributor.
const ACCEPTING: u32 = 1 << 31;
const USERS: u32 = OPEN - 1;

/// Permission to use one redistributor's registers. Initially closed.
///
/// A user checks that access is open and adds itself to the count in one atomic step. After
/// [`close`](Self::close) no new user can enter, so the count falls to zero.
#[derive(Debug, Default)]
pub(crate) struct RegisterAccess(AtomicU32);

/// Guard that allows register use until it is dropped.
#[derive(Debug)]
pub(crate) struct RegisterGuard<'a>(&'a RegisterAccess);

impl RegisterAccess {
    /// Opens the registers to users. The redistributor must be awake. LPIs must not be routed to it
    /// before [`accept`](Self::accept).
    pub(crate) fn open(&self) {
        self.0.fetch_or(OPEN, Ordering::SeqCst);
    }

    /// Allows LPIs to be routed to this redistributor, at which LPIs must be enabled.
    pub(crate) fn accept(&self) {
        self.0.fetch_or(ACCEPTING, Ordering::SeqCst);
    }

    /// Prevents further LPIs from being routed to this redistributor. LPIs that were routed to it
    /// earlier are already in the records.
    pub(crate) fn refuse(&self) {
        self.0.fetch_and(!ACCEPTING, Ordering::SeqCst);
    }

    /// Closes the registers to new users. A user that entered earlier may still hold a guard; see
    /// [`is_used`](Self::is_used).
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

    /// Adds the caller to the users of the registers. Returns `None` if access is closed.
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
