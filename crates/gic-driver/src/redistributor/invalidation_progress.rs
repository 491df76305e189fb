//! Tracks a redistributor's invalidations.

use doorbell_lock::IrqLock;

/// A redistributor's invalidations.
#[derive(Debug, Default)]
pub(super) struct Invalidations(pub(super) IrqLock<Progress>);

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of invalidations written.
    pub(super) written: u64,
    /// Number of completed invalidations, i.e. invalidations that were written before `Busy` was
    /// last read as 0.
    pub(super) complete: u64,
    /// Set if a wait for an invalidation timed out and `Busy` has been 1 ever since.
    pub(super) stuck: bool,
}
