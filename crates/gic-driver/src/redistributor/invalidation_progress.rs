//! Progress of the invalidations of one redistributor.

use doorbell_lock::IrqLock;

/// Invalidations of one redistributor.
#[derive(Debug, Default)]
pub(super) struct Invalidations(pub(super) IrqLock<Progress>);

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of invalidations written.
    pub(super) written: u64,
    /// Number of completed invalidations: those written before `Busy` was last read as 0.
    pub(super) complete: u64,
    /// An invalidation was not complete at the end of its wait, and `Busy` has been 1 ever since.
    pub(super) stuck: bool,
}
