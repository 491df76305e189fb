//! State of an ITS's invalidations by `GICR_INVLPIR`.

use crate::register_access::RegisterAccess;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::try_collect;

/// The permissions to use the redistributors' registers, by CPU, and the moves that are under way.
#[derive(Debug)]
pub(crate) struct RegisterInvalidation {
    pub(super) access: Vec<RegisterAccess>,
    /// Number of moves whose commands the ITS may still execute.
    pub(super) moves: AtomicU32,
}

impl RegisterInvalidation {
    /// For so many CPUs, all closed.
    pub(super) fn new(cpus: usize) -> Result<Self, TryReserveError> {
        let access = try_collect((0..cpus).map(|_| RegisterAccess::default()))?;
        Ok(Self { access, moves: AtomicU32::new(0) })
    }

    /// Must be called before the route of an event changes. Until the move
    /// [ended](Self::end_move), invalidations use the queue.
    pub(super) fn begin_move(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// The ITS executed all commands of a move, or none. Must not be called for a move of which it
    /// may execute some later.
    pub(super) fn end_move(&self) {
        self.moves.fetch_sub(1, Ordering::SeqCst);
    }
}
