//! Routes: `GICD_IROUTER<n>` as the guest wrote it, and the target that an interrupt's word has
//! from it.

use super::Wired;
use crate::interrupt::InterruptWord;
use crate::wired_index::WiredIndex;
use gic_arch::IntId;
use gic_arch::gicd::Irouter;
use msi_types::Cpu;

impl Wired {
    /// `GICD_IROUTER<n>`; 0 for what the guest cannot see.
    pub(crate) fn route(&self, intid: IntId) -> Irouter {
        let index =
            self.visible(Cpu::new(0), intid).and_then(|_| WiredIndex::of(intid)?.shared_index());
        let routes = self.routes.lock();
        Irouter::from(index.and_then(|index| routes.get(index)).copied().unwrap_or(0))
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
        let route = self.valid_route(Irouter::from(change(*stored)));
        *stored = route.into_bits();
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
