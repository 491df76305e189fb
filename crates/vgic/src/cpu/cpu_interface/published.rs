//! The state of a CPU interface that its vCPU publishes, so that other threads can explain why an
//! interrupt is not signaled.

use super::active_priorities::ActivePriorities;
use super::{CpuInterface, Features};
use crate::config::SecurityView;
use crate::wired::{Group, PublishedInterface};
use gic_arch::Priority;
use gic_arch::ich::Vmcr;
use msi_types::Cpu;
use msi_types::explain::Obstacle;

/// Low bits of the published activity: the most urgent active priority of each group, by number.
const PRIORITY_BITS: u32 = 16;

impl CpuInterface {
    /// Publishes the settings, after a write to a register.
    pub(crate) fn publish_settings(&self, to: &PublishedInterface) {
        to.settings.set(self.vmcr().into_bits());
    }

    /// Publishes the active priorities, and the number of acknowledgments so far.
    #[inline]
    pub(crate) fn publish_activity(&self, to: &PublishedInterface, acknowledged: u64) {
        let firsts = self.active.map(ActivePriorities::first);
        to.activity.set(acknowledged << PRIORITY_BITS | u64::from(u16::from_le_bytes(firsts)));
    }

    /// Returns what keeps the interface of this vCPU from signaling an interrupt of this priority.
    pub(crate) fn obstacle(&self, cpu: Cpu, group: Group, priority: Priority) -> Option<Obstacle> {
        if !self.takes(group) {
            return Some(Obstacle::InterfaceGroupDisabled { group: group.into(), cpu });
        }
        let shown = self.view(priority);
        if !priority.is_more_urgent_than(self.mask) {
            let mask = self.mask_view();
            return Some(Obstacle::PriorityMasked { priority: shown, mask, cpu });
        }
        let running = self.running_view();
        let blocks = !self.preempts(priority, group);
        blocks.then_some(Obstacle::PriorityNotHigher { priority: shown, running, cpu })
    }

    /// Returns a priority as the guest configures it.
    pub(crate) fn view(&self, priority: Priority) -> u8 {
        match self.features.security {
            SecurityView::Single => priority.get(),
            SecurityView::NonSecure => priority.non_secure_view().get(),
        }
    }

    /// Returns the interface that was published, with at most one active priority per group, and
    /// the number of acknowledgments.
    pub(crate) fn published(features: Features, by: &PublishedInterface) -> (Self, u64) {
        let activity = by.activity.get();
        let mut interface = Self::new(features);
        interface.load(Vmcr::from_bits(by.settings.get()), [[0; 4]; 2]);
        let [zero, one, ..] = activity.to_le_bytes();
        interface.active = [zero, one].map(ActivePriorities::of_first);
        (interface, activity >> PRIORITY_BITS)
    }
}
