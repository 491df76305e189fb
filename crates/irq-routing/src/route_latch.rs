//! A latch for a GSI's route. All threads may read the route while a single writer changes it.
//! Readers never wait for the writer, and never observe a partial change.
//!
//! This is Linux's `seqcount_latch_t`: two copies, and a version that selects one of them.
//!
//! 1. A writer stores the words of the copy that is not selected.
//! 2. The writer stores the next version, which selects that copy.
//! 3. A reader loads the version, then the words of the selected copy, then the version again. If
//!    the version has changed, the reader starts over.
//!
//! A reader only starts over if a change was completed during its attempt.

use crate::route::{Route, Words};
use crate::sync::{AtomicU64, SeqCst};

/// Low bits of the version, which hold the kind of the route (see [`Words`]).
const KIND: u64 = 0b11;
/// Bit 2 of the version, which selects the copy. Bits 63:2 count the changes, up to 2^62. The count
/// never wraps in practice, so a version cannot recur between a reader's loads.
const STEP: u64 = KIND + 1;

/// A GSI's optional route. The latch is aligned to a cache line, so that a change doesn't slow down
/// readers of neighboring GSIs.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct RouteLatch {
    version: AtomicU64,
    copies: [Copied; 2],
}

#[derive(Debug)]
struct Copied {
    address: AtomicU64,
    rest: AtomicU64,
}

impl RouteLatch {
    /// Creates a latch without a route.
    pub(crate) fn new() -> Self {
        let copy = || Copied { address: AtomicU64::new(0), rest: AtomicU64::new(0) };
        Self { version: AtomicU64::new(0), copies: [copy(), copy()] }
    }

    /// Stores a route, or none. Callers must ensure that only one thread stores at a time.
    pub(crate) fn store(&self, route: Option<Route>) {
        let words = Words::of(route);
        let next = self.version.load(SeqCst).wrapping_add(STEP);
        let copy = self.copy(next);
        copy.address.store(words.address, SeqCst);
        copy.rest.store(words.rest, SeqCst);
        self.version.store(next & !KIND | words.kind, SeqCst);
    }

    /// Returns the route that was set at some moment during the call.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn load(&self) -> Option<Route> {
        let mut version = self.version.load(SeqCst);
        loop {
            let kind = version & KIND;
            if kind == Words::NONE.kind {
                return None;
            }
            let copy = self.copy(version);
            let address = copy.address.load(SeqCst);
            let rest = copy.rest.load(SeqCst);
            let now = self.version.load(SeqCst);
            if now == version {
                return Words { kind, address, rest }.route();
            }
            version = now;
        }
    }

    #[inline]
    fn copy(&self, version: u64) -> &Copied {
        let [even, odd] = &self.copies;
        if version & STEP == 0 { even } else { odd }
    }
}
