//! SGIs that vCPUs send.

use super::{Group, Wired};
use crate::wired::index::WiredIndex;
use gic_arch::Affinity;
use gic_arch::icc::Sgi;
use msi_types::Cpu;

/// Targets that one write can name: those of a range of Aff0.
const RANGE: u8 = 16;

impl Wired {
    /// An SGI as `ICC_SGI1R_EL1` and its kin ask for it: to those of its targets whose SGI is in
    /// `group`.
    pub(crate) fn send_sgi(&self, from: Cpu, sgi: Sgi, group: Group) {
        let Some(index) = WiredIndex::new(sgi.intid().into()) else { return };
        if sgi.all_but_self() {
            let others = self.by_affinity.iter().filter(|(_, target)| *target != from);
            others.for_each(|(_, target)| self.pend_sgi(*target, index, group));
            return;
        }
        let first = sgi.range_selector() * RANGE;
        let first = Affinity::new(sgi.aff3(), sgi.aff2(), sgi.aff1(), first);
        let behind = self.by_affinity.partition_point(|(affinity, _)| *affinity < first);
        for (affinity, target) in &self.by_affinity[behind..] {
            match affinity.packed() - first.packed() {
                at @ 0..16 if sgi.target_list() & 1 << at != 0 => {
                    self.pend_sgi(*target, index, group);
                }
                0..16 => {}
                16.. => break,
            }
        }
    }

    /// An SGI becomes pending at `target`, if it is in `group` there. It has no input, goes to no
    /// other PE, and holds no physical interrupt.
    #[inline]
    fn pend_sgi(&self, target: Cpu, index: WiredIndex, group: Group) {
        let Some(private) = self.private(target) else { return };
        let Some(interrupt) = private.interrupts.get(index.get()) else { return };
        let pended = interrupt
            .try_update(|state| (Group::of(state) == group).then(|| state.with_latch(true)));
        let Some((old, new)) = pended else { return };
        if new.ready() {
            self.notify(target, private, index, new);
        }
        self.refresh_listed(old, new);
    }
}
