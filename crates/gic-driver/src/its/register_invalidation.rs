//! State of an ITS's invalidations by `GICR_INVLPIR`.

use crate::register_access::RegisterAccess;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::try_collect;

/// Permissions to use the redistributors' registers, by CPU, and the number of moves in progress.
#[derive(Debug)]
pub(crate) struct RegisterInvalidation {
    pub(super) access: Vec<RegisterAccess>,
    /// Number of moves whose commands the ITS may still execute.
    pub(super) moves: AtomicU32,
}

impl RegisterInvalidation {
    /// Creates the state for `cpus` CPUs, with all registers closed.
    pub(super) fn new(cpus: usize) -> Result<Self, TryReserveError> {
        let access = try_collect((0..cpus).map(|_| RegisterAccess::default()))?;
        Ok(Self { access, moves: AtomicU32::new(0) })
    }

    /// Begins a move. Must be called before the route of an event changes. Invalidations use the
    /// queue until the move has [ended](Self::end_move).
    pub(super) fn begin_move(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a move of which the ITS executed all commands, or none. Must not be called if the ITS
    /// may execute some of them later.
    pub(super) fn end_move(&self) {
        self.moves.fetch_sub(1, Ordering::SeqCst);
    }
}
