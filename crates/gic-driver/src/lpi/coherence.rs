//! Coherence of the attached redistributors' reads of the configuration table.

use crate::Coherence;
use core::sync::atomic::{AtomicU8, Ordering};

/// No redistributor has been attached yet, so writes to the table are cleaned to the point of
/// coherency.
const UNKNOWN: u8 = 0;
/// All attached redistributors are coherent.
const COHERENT: u8 = 1;
/// At least one attached redistributor is not coherent.
const NON_COHERENT: u8 = 2;

/// Common coherence of all attached redistributors, which is non-coherent if at least one of them
/// is.
#[derive(Debug)]
pub(super) struct AttachedCoherence(AtomicU8);

impl AttachedCoherence {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// Returns the common coherence, which is non-coherent until the first redistributor is
    /// recorded.
    pub(super) fn get(&self) -> Coherence {
        Self::decode(self.0.load(Ordering::SeqCst))
    }

    pub(super) fn note_coherent(&self) {
        // The exchange only succeeds for the first redistributor; for later ones, the state does
        // not change.
        let _ = self.0.compare_exchange(UNKNOWN, COHERENT, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Records a non-coherent redistributor and returns the previous state.
    pub(super) fn note_non_coherent(&self) -> Coherence {
        Self::decode(self.0.swap(NON_COHERENT, Ordering::SeqCst))
    }

    const fn decode(state: u8) -> Coherence {
        if state == COHERENT { Coherence::Coherent } else { Coherence::NonCoherent }
    }
}
