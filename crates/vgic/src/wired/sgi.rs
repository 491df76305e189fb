//! Sending of SGIs.

use super::Wired;
use super::index::WiredIndex;
use super::interrupt::Group;
use super::pes::Private;
use gic_arch::icc::Sgi;
use msi_types::Cpu;

impl Wired {
    /// Sends an SGI for `ICC_SGI1R_EL1` or a related register, to all targets at which the SGI is
    /// in `group`.
    #[inline]
    pub(crate) fn send_sgi(&self, from: Cpu, sgi: Sgi, group: Group) {
        let Some(index) = WiredIndex::new(sgi.intid().into()) else { return };
        if sgi.all_but_self() {
            return self.send_to_others(from, index, group);
        }
        self.affinities.each_target(sgi, move |target| {
            if let Some(private) = self.private(target) {
                self.pend_sgi(target, private, index, group);
            }
        });
    }

    /// Makes an SGI pending at all vCPUs but `from`.
    #[inline(never)]
    fn send_to_others(&self, from: Cpu, index: WiredIndex, group: Group) {
        for (target, private) in (0..).map(Cpu::new).zip(self.privates()) {
            if target != from {
                self.pend_sgi(target, private, index, group);
            }
        }
    }

    /// Makes an SGI pending at `target`, if it is in `group` there. SGIs don't have an input,
    /// aren't rerouted, and are never linked to a physical interrupt.
    #[inline]
    fn pend_sgi(&self, target: Cpu, private: &Private, index: WiredIndex, group: Group) {
        let Some(interrupt) = private.interrupts.get(index.get()) else { return };
        let pended = interrupt
            .try_update(|state| (Group::of(state) == group).then(|| state.with_latch(true)));
        let Some((old, new)) = pended else { return };
        if new.ready() {
            self.notify(target, private, index, group);
        }
        self.refresh_listed(old, new);
    }
}
