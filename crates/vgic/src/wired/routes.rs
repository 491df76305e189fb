//! Routes: `GICD_IROUTER<n>` as the guest wrote it, and the target that an interrupt's word has
//! from it.

use super::Wired;
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use gic_arch::gicd::Irouter;
use gic_arch::{Affinity, IntId};
use msi_types::Cpu;

impl Wired {
    /// `GICD_IROUTER<n>`; 0 for what the guest cannot see.
    pub(crate) fn route(&self, intid: IntId) -> Irouter {
        let routes = self.routes.lock();
        let stored = || {
            let state = self.visible(Cpu::new(0), intid)?;
            let affinity = routes.get(WiredIndex::of(intid)?.shared_index()?)?;
            Some(route_of(*affinity, state))
        };
        stored().unwrap_or_default()
    }

    /// Writes `GICD_IROUTER<n>`: `change` of its old value.
    pub(crate) fn set_route(&self, intid: IntId, change: impl Fn(u64) -> u64) {
        if self.visible(Cpu::new(0), intid).is_none() {
            return;
        }
        let Some(index) = self.index(intid) else { return };
        let Some(shared) = index.shared_index() else { return };
        let mut routes = self.routes.lock();
        let (Some(stored), Some(interrupt)) = (routes.get_mut(shared), self.shared.get(shared))
        else {
            return;
        };
        let old = route_of(*stored, interrupt.state());
        let route = self.valid_route(Irouter::from(change(old.into_bits())));
        *stored = route.affinity();
        let target = self.resolve(route);
        let (old, new) = interrupt.update(|state| {
            let aimed = state.with_any(route.any_participating()).with_target_index(target);
            self.aim(state, aimed)
        });
        drop(routes);
        self.settle(index, new);
        self.recall_changed(intid, old, new);
    }

    /// The route with what is RES0 taken away.
    pub(super) fn valid_route(&self, written: Irouter) -> Irouter {
        Irouter::to(written.affinity())
            .with_any_participating(written.any_participating() && self.one_of_n)
    }

    /// The vCPU index that a route names, for [`InterruptWord::target_index`];
    /// [`InterruptWord::NOWHERE`] if it names none, or any.
    pub(super) fn resolve(&self, route: Irouter) -> u16 {
        if route.any_participating() {
            return InterruptWord::NOWHERE;
        }
        let found =
            self.by_affinity.binary_search_by_key(&route.affinity(), |(affinity, _)| *affinity);
        found
            .ok()
            .and_then(|at| self.by_affinity.get(at))
            .and_then(|(_, cpu)| u16::try_from(cpu.get()).ok())
            .unwrap_or(InterruptWord::NOWHERE)
    }
}

/// `GICD_IROUTER<n>` of an interrupt whose route has this affinity.
pub(super) fn route_of(affinity: Affinity, state: InterruptWord) -> Irouter {
    Irouter::to(affinity).with_any_participating(state.any())
}
