//! The way in which the redistributors that were attached read the configuration table.

use crate::Coherence;
use core::sync::atomic::{AtomicU8, Ordering};

/// No redistributor has negotiated: everything is cleaned.
const UNKNOWN: u8 = 0;
/// All redistributors look into caches.
const COHERENT: u8 = 1;
/// One of them does not.
const NON_COHERENT: u8 = 2;

/// One that is not coherent outweighs all others.
#[derive(Debug)]
pub(super) struct AttachedCoherence(AtomicU8);

impl AttachedCoherence {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// Non-coherent until the first is noted.
    pub(super) fn get(&self) -> Coherence {
        Self::decode(self.0.load(Ordering::Acquire))
    }

    pub(super) fn note_coherent(&self) {
        // It is not the first, or another is not coherent: nothing changes.
        let _ = self.0.compare_exchange(UNKNOWN, COHERENT, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns the state before.
    pub(super) fn note_non_coherent(&self) -> Coherence {
        Self::decode(self.0.swap(NON_COHERENT, Ordering::AcqRel))
    }

    const fn decode(state: u8) -> Coherence {
        if state == COHERENT { Coherence::Coherent } else { Coherence::NonCoherent }
    }
}
