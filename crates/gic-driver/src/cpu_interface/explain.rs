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
        let pending = Explanation::new();
        let pending =
            if is_pending { pending.with_fact(Fact::Pending(interrupt)) } else { pending };
        let (mask, running, priority) = (self.mask.get(), self.running.get(), priority.get());
        let group_priority = priority >> self.binary_point.min(7) << self.binary_point.min(7);
        let grouping = (group_priority != priority).then_some(Fact::GroupPriority {
            priority,
            group_priority,
            binary_point: self.binary_point,
        });
        let signals = |fact| match self.irqs_masked {
            None => pending.with_fact(fact).with_unexamined(Unexamined::ExceptionMask),
            Some(_) => pending.with_fact(fact),
        };
        let obstacle = if !self.is_enabled {
            Obstacle::InterfaceGroupDisabled { group: self.group, cpu }
        } else if priority >= mask {
            Obstacle::PriorityMasked { priority, mask, cpu }
        } else if group_priority >= running {
            let running = Obstacle::PriorityNotHigher { priority, running, cpu };
            return grouping
                .into_iter()
                .fold(pending, Explanation::with_fact)
                .with_obstacle(running);
        } else if self.irqs_masked == Some(true) {
            Obstacle::ExceptionsMasked { cpu }
        } else if is_pending {
            return signals(Fact::Signaled(cpu));
        } else {
            return signals(Fact::WouldSignal(cpu));
        };
        pending.with_obstacle(obstacle)
    }
}
