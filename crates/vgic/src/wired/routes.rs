//! Routes: `GICD_IROUTER<n>` as the guest wrote it.

use super::index::WiredIndex;
use super::interrupt::InterruptWord;
use crate::sync::lock::{Mutex, MutexGuard};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Affinity;
use gic_arch::gicd::Irouter;

/// The affinities of the routes of shared interrupts. The interrupt's word says whether any PE may
/// take it. The lock is held while the word takes the target, so that two writers of one route
/// cannot leave register and word apart.
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

    /// The route with what is RES0 taken away.
    pub(super) fn valid(&self, written: Irouter) -> Irouter {
        Irouter::to(written.affinity())
            .with_any_participating(written.any_participating() && self.one_of_n)
    }
}

impl LockedRoutes<'_> {
    /// Gives every route its value after reset.
    pub(super) fn reset(&mut self) {
        self.0.fill(Irouter::new().affinity());
    }

    /// The affinity of a shared interrupt's route.
    pub(super) fn get(&self, index: WiredIndex) -> Option<Affinity> {
        self.0.get(index.shared_index()?).copied()
    }

    /// Stores the affinity of a shared interrupt's route.
    pub(super) fn set(&mut self, index: WiredIndex, affinity: Affinity) {
        if let Some(stored) = index.shared_index().and_then(|index| self.0.get_mut(index)) {
            *stored = affinity;
        }
    }
}

/// `GICD_IROUTER<n>` of an interrupt whose route has this affinity.
pub(super) fn route_of(affinity: Affinity, state: InterruptWord) -> Irouter {
    Irouter::to(affinity).with_any_participating(state.any())
}
