//! Progress of the invalidations of one redistributor.

use doorbell_lock::IrqLock;

/// The invalidations of one redistributor.
#[derive(Debug, Default)]
pub(super) struct Invalidations(pub(super) IrqLock<Progress>);

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of invalidations written.
    pub(super) written: u64,
    /// The number of these that are complete: all written before `Busy` was last read as 0.
    pub(super) complete: u64,
    /// One of them outlasted a whole wait, and `Busy` has been 1 since.
    pub(super) stuck: bool,
}
