//! Routes: `GICD_IROUTER<n>` as the guest wrote it.

use super::index::WiredIndex;
use super::interrupt::InterruptWord;
use crate::sync::lock::{Mutex, MutexGuard};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Affinity;
use gic_arch::gicd::Irouter;

/// Affinities in the shared interrupts' routes. The "any PE" bit is in the interrupt's word. A
/// writer holds the lock until the word has the new target, so that two concurrent writers can't
/// leave the register and the word inconsistent.
pub(super) struct RouteRegisters {
    stored: Mutex<Box<[Affinity]>>,
    /// `GICD_TYPER.No1N` is clear.
    pub(super) one_of_n: bool,
}

/// The routes, locked.
pub(super) struct LockedRoutes<'a>(MutexGuard<'a, Box<[Affinity]>>);

impl RouteRegisters {
    pub(super) fn new(shared: usize, one_of_n: bool) -> Result<Self, OutOfMemory> {
        let stored = try_boxed_slice((0..shared).map(|_| Irouter::new().affinity()))?;
        Ok(Self { stored: Mutex::new(stored), one_of_n })
    }

    pub(super) fn lock(&self) -> LockedRoutes<'_> {
        LockedRoutes(self.stored.lock())
    }

    /// Returns the route with RES0 bits cleared.
    pub(super) fn valid(&self, written: Irouter) -> Irouter {
        Irouter::to(written.affinity())
            .with_any_participating(written.any_participating() && self.one_of_n)
    }
}

impl LockedRoutes<'_> {
    /// Sets every route to its reset value.
    pub(super) fn reset(&mut self) {
        self.0.fill(Irouter::new().affinity());
    }

    /// Returns the affinity in a shared interrupt's route.
    pub(super) fn get(&self, index: WiredIndex) -> Option<Affinity> {
        self.0.get(index.shared_index()?).copied()
    }

    /// Stores the affinity in a shared interrupt's route.
    pub(super) fn set(&mut self, index: WiredIndex, affinity: Affinity) {
        if let Some(stored) = index.shared_index().and_then(|index| self.0.get_mut(index)) {
            *stored = affinity;
        }
    }
}

/// Returns `GICD_IROUTER<n>` for an interrupt whose route has this affinity.
pub(super) fn route_of(affinity: Affinity, state: InterruptWord) -> Irouter {
    Irouter::to(affinity).with_any_participating(state.any())
}
