//! One GSI's route: changed by one writer at a time while anybody reads it.
//!
//! Two copies and a version that says which of them is read. A change writes the other copy and then the version; a
//! reader that finds the version changed after it has read its copy begins anew. So a reader never waits for a writer
//! that was interrupted, never sees half of a change, and repeats only when a change was completed meanwhile.

use crate::atomic::{AtomicU64, SeqCst};
use crate::route::{Route, Words};
use crate::safeguard::Safeguard;

/// The version's low bits: the kind of the route (see [`Words`]).
const KIND: u64 = 0b11;
/// The next bit chooses the copy; it and those above count changes: 2^62 of them, so that they never come round.
const STEP: u64 = KIND + 1;

/// In a cache line of its own, so that changing a route does not disturb who uses its neighbours.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    version: AtomicU64,
    copies: [Copied; 2],
}

#[derive(Debug)]
struct Copied {
    address: AtomicU64,
    rest: AtomicU64,
}

impl Slot {
    /// Without a route.
    pub(crate) fn new() -> Self {
        let copy = || Copied { address: AtomicU64::new(0), rest: AtomicU64::new(0) };
        Self { version: AtomicU64::new(0), copies: [copy(), copy()] }
    }

    /// Stores a route, or none. One writer at a time.
    pub(crate) fn store(&self, route: Option<Route>) {
        let words = Words::of(route);
        let old = self.version.load(SeqCst);
        let next = next(old);
        let aside = if Safeguard::WriteAside.stands() { next } else { old };
        let copy = self.copy(aside);
        copy.address.store(words.address, SeqCst);
        copy.rest.store(words.rest, SeqCst);
        self.version.store(next & !KIND | words.kind, SeqCst);
    }

    /// The route: as it was at some moment of the call. Any thread.
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
            if now == version || !Safeguard::CompareVersion.stands() {
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

fn next(version: u64) -> u64 {
    if Safeguard::Sequence.stands() { version.wrapping_add(STEP) } else { version ^ STEP }
}
