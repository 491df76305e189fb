//! The state of a CPU interface that its vCPU publishes, from which other threads explain why the
//! interface does not signal an interrupt.

use super::active_priorities::ActivePriorities;
use super::{CpuInterface, Features};
use crate::config::SecurityView;
use crate::wired::PublishedInterface;
use gic_arch::Priority;
use gic_arch::ich::Vmcr;
use msi_types::Cpu;
use msi_types::explain::Group;
use msi_types::explain::{Fact, Obstacle};

impl CpuInterface {
    /// Publishes the settings after a register write.
    pub(crate) fn publish_settings(&self, to: &PublishedInterface) {
        to.settings.set(self.vmcr().into_bits());
    }

    /// Publishes the settings after a write of the priority mask alone.
    #[inline]
    pub(crate) fn publish_mask(&self, to: &PublishedInterface) {
        let others = Vmcr::from_bits(to.settings.get());
        to.settings.set(others.with_vpmr(self.mask.get()).into_bits());
    }

    /// Publishes the highest active priorities.
    #[inline]
    pub(crate) fn publish_activity(&self, to: &PublishedInterface) {
        to.activity.set(u16::from_le_bytes(self.active.map(ActivePriorities::first)).into());
    }

    /// Publishes the highest active priority of a group.
    #[inline]
    pub(crate) fn publish_active(&self, to: &PublishedInterface, group: Group) {
        let (index, shift) = (group as usize, u8::BITS as usize * group as usize);
        let others = to.activity.get() & !(0xff << shift);
        to.activity.set(others | u64::from(self.active[index].first()) << shift);
    }

    /// Returns the reason why the interface of this vCPU does not signal an interrupt with this
    /// priority, if there is one.
    pub(crate) fn obstacles(
        &self,
        cpu: Cpu,
        group: Group,
        priority: Priority,
    ) -> [Option<Obstacle>; 3] {
        let (shown, mask, running) = (self.view(priority), self.mask_view(), self.running_view());
        let masked = !priority.is_more_urgent_than(self.mask);
        let blocked = !self.preempts(priority, group);
        [
            (!self.takes(group)).then_some(Obstacle::InterfaceGroupDisabled { group, cpu }),
            masked.then_some(Obstacle::PriorityMasked { priority: shown, mask, cpu }),
            blocked.then_some(Obstacle::PriorityNotHigher { priority: shown, running, cpu }),
        ]
    }

    /// Returns a fact if the binary point hides a part of the priority from the comparison with the
    /// running priority.
    pub(crate) fn grouping(&self, group: Group, priority: Priority) -> Option<Fact> {
        let compared = self.group_priority(priority, group);
        let point = if self.common_binary_point { Group::Zero } else { group };
        (compared != priority).then(|| Fact::GroupPriority {
            priority: self.view(priority),
            group_priority: self.view(compared),
            binary_point: self.binary_point[point as usize],
        })
    }

    /// Returns a priority in the guest's security view.
    pub(crate) fn view(&self, priority: Priority) -> u8 {
        match self.features.security {
            SecurityView::Single => priority.get(),
            SecurityView::NonSecure => priority.non_secure_view().get(),
        }
    }

    /// Returns the published interface, with at most one active priority per group.
    pub(crate) fn published(features: Features, by: &PublishedInterface) -> Self {
        let mut interface = Self::new(features);
        interface.load(Vmcr::from_bits(by.settings.get()), [[0; 4]; 2]);
        let [zero, one, ..] = by.activity.get().to_le_bytes();
        interface.active = [zero, one].map(ActivePriorities::of_first);
        interface
    }
}
