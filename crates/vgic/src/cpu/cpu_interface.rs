//! A PE's CPU interface (IHI 0069 §4.8, §12.2): masks, binary points, active priorities, and the
//! rules by which an interrupt preempts. Plain state of one vCPU; what is pending is not its
//! business.

mod active_priorities;
mod registers;
mod saved;
mod virtual_interface;

use crate::config::SecurityView;
use crate::wired::Group;
use active_priorities::ActivePriorities;
use gic_arch::Priority;

/// Options that the interface is built with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    pub(crate) security: SecurityView,
    /// 4 to 8.
    pub(crate) priority_bits: u8,
    /// `ICC_CTLR_EL1.IDbits`: 0 for 16, 1 for 24.
    pub(crate) id_bits_code: u8,
    /// `ICC_CTLR_EL1.ExtRange`.
    pub(crate) extended_range: bool,
}

impl Features {
    /// Bits of a group priority: one bit is always subpriority.
    fn preemption_bits(self) -> u8 {
        self.priority_bits.min(7)
    }

    /// Lowest value of a group's binary point.
    fn smallest_binary_point(self, group: Group) -> u8 {
        let smallest = 7 - self.preemption_bits();
        match group {
            Group::Zero => smallest,
            Group::One => smallest + 1,
        }
    }

    /// Number of active-priority registers of a group.
    pub(crate) fn active_priority_registers(self) -> usize {
        1 << self.preemption_bits().saturating_sub(5)
    }
}

/// The interface's state.
#[derive(Clone, Debug)]
pub(crate) struct CpuInterface {
    features: Features,
    /// `ICC_PMR_EL1` as the hardware has it.
    mask: Priority,
    binary_point: [u8; 2],
    /// `ICC_CTLR_EL1.CBPR`.
    common_binary_point: bool,
    /// `ICC_CTLR_EL1.EOImode`.
    split_eoi: bool,
    active: [ActivePriorities; 2],
    /// `ICC_IGRPEN<n>_EL1`.
    enabled: [bool; 2],
}

impl CpuInterface {
    /// After reset. Where there are two security states, firmware has left the guest its half of
    /// the priorities, all masked.
    pub(crate) fn new(features: Features) -> Self {
        Self {
            features,
            mask: match features.security {
                SecurityView::Single => Priority::HIGHEST,
                SecurityView::NonSecure => Priority::from_non_secure_view(0),
            },
            binary_point: [Group::Zero, Group::One]
                .map(|group| features.smallest_binary_point(group)),
            common_binary_point: false,
            split_eoi: false,
            active: [ActivePriorities::new(0); 2],
            enabled: [false; 2],
        }
    }

    /// An interrupt of this priority was acknowledged: its group priority is active.
    pub(crate) fn activate(&mut self, priority: Priority, group: Group) {
        let level =
            self.group_priority(priority, group).get() >> (8 - self.features.preemption_bits());
        self.active[group.index()].insert(level);
    }

    /// The interrupt that runs is done: its group priority is no more active. `false`, and nothing
    /// happens, if what runs is not in this group.
    pub(crate) fn drop_priority(&mut self, group: Group) -> bool {
        if self.running_group() != Some(group) {
            return false;
        }
        self.active[group.index()].remove_first();
        true
    }

    /// Would an interrupt of this priority be signalled now? It must pass the mask, and its group
    /// priority must be more urgent than what runs.
    pub(crate) fn signals(&self, priority: Priority, group: Group) -> bool {
        self.takes(group)
            && priority.is_more_urgent_than(self.mask)
            && self.preempts(priority, group)
    }

    fn preempts(&self, priority: Priority, group: Group) -> bool {
        match self.running() {
            Priority::IDLE => true,
            running => {
                let running = self.group_priority(running, group);
                self.group_priority(priority, group).is_more_urgent_than(running)
            }
        }
    }

    /// Options that the interface is built with.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Priority limit of the group: [`signals`](Self::signals) holds exactly for interrupts that
    /// are more urgent.
    pub(crate) fn limit(&self, group: Group) -> Priority {
        match (self.takes(group), self.running()) {
            (false, _) => Priority::HIGHEST,
            (true, Priority::IDLE) => self.mask,
            (true, running) => self.mask.min(self.group_priority(running, group)),
        }
    }

    /// Does the interface take interrupts of the group (`ICC_IGRPEN<n>_EL1`)?
    pub(crate) fn takes(&self, group: Group) -> bool {
        self.enabled[group.index()]
    }

    /// `ICC_CTLR_EL1.EOImode`: EOI drops the priority only.
    pub(crate) fn splits_eoi(&self) -> bool {
        self.split_eoi
    }

    /// The most urgent active group priority, or [`Priority::IDLE`].
    pub(crate) fn running(&self) -> Priority {
        let level = self.active[0].first().min(self.active[1].first());
        match u8::try_from(u32::from(level) << (8 - self.features.preemption_bits())) {
            Ok(priority) => Priority::new(priority),
            Err(_) => Priority::IDLE,
        }
    }

    /// The group of the most urgent active priority; Group 0 if both have it.
    fn running_group(&self) -> Option<Group> {
        let [zero, one] = self.active.map(ActivePriorities::first);
        match (zero <= one, zero.min(one)) {
            (_, ActivePriorities::NONE) => None,
            (true, _) => Some(Group::Zero),
            (false, _) => Some(Group::One),
        }
    }

    /// The part of a priority that decides about preemption. Binary point N leaves bits 7:N+1; that
    /// of Group 1 leaves bits 7:N, unless Group 0's serves both.
    fn group_priority(&self, priority: Priority, group: Group) -> Priority {
        let point = match group {
            Group::One if !self.common_binary_point => self.binary_point[1],
            Group::Zero | Group::One => self.binary_point[0] + 1,
        };
        priority.truncated(8 - u32::from(point.min(8)))
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests;
