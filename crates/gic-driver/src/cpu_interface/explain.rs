//! Explanations of whether a CPU interface signals an interrupt.

use gic_arch::{IntId, Priority};
use msi_types::explain::{Explanation, Fact, Group, Obstacle, Unexamined};
use msi_types::{Cpu, HwIrq};

/// CPU interface state that determines whether an interrupt is signaled.
pub(crate) struct InterfaceState {
    /// The group that the kernel handles.
    pub(crate) group: Group,
    /// `true` if the interface signals this group.
    pub(crate) is_enabled: bool,
    pub(crate) mask: Priority,
    pub(crate) running: Priority,
    pub(crate) highest_pending: Option<IntId>,
    /// `true` if the CPU masks IRQ exceptions (`PSTATE.I`); `None` if unknown.
    pub(crate) irqs_masked: Option<bool>,
    /// Number of low bits of a priority that are not compared with the running priority.
    pub(crate) binary_point: u8,
}

impl InterfaceState {
    /// Explains whether the interface signals an interrupt with this priority to `cpu`. The
    /// priority may be in the Non-secure view while the mask and the running priority are
    /// [unshifted](super::PriorityScale::Unshifted). The comparison then admits some priorities
    /// that the interface masks, but never the reverse.
    pub(crate) fn explain(self, cpu: Cpu, interrupt: HwIrq, priority: Priority) -> Explanation {
        let is_pending = self.highest_pending.map(IntId::hwirq) == Some(interrupt);
        let pending = is_pending.then_some(Fact::Pending(interrupt));
        let (mask, running, priority) = (self.mask.get(), self.running.get(), priority.get());
        let group_priority = priority >> self.binary_point.min(7) << self.binary_point.min(7);
        let is_masked = self.irqs_masked == Some(true);
        let is_hindered = group_priority >= running;
        let obstacles = [
            (!self.is_enabled)
                .then_some(Obstacle::InterfaceGroupDisabled { group: self.group, cpu }),
            (priority >= mask).then_some(Obstacle::PriorityMasked { priority, mask, cpu }),
            is_hindered.then_some(Obstacle::PriorityNotHigher { priority, running, cpu }),
            is_masked.then_some(Obstacle::ExceptionsMasked { cpu }),
        ];
        let fact = match obstacles {
            [None, None, None, None] if is_pending => Some(Fact::Signaled(cpu)),
            [None, None, None, None] => Some(Fact::WouldSignal(cpu)),
            _ if is_hindered && group_priority != priority => Some(Fact::GroupPriority {
                priority,
                group_priority,
                binary_point: self.binary_point,
            }),
            _ => None,
        };
        let found = Explanation::new().with_facts(&[pending, fact]).with_obstacles(&obstacles);
        match self.irqs_masked {
            None => found.with_unexamined(Unexamined::ExceptionMask),
            Some(_) => found,
        }
    }
}
