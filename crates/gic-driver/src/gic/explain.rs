//! Explanations of how far an interrupt gets through the distributor, the target's redistributor
//! and its CPU interface.

use super::Gic;
use crate::cpu_interface::InterfaceState;
use crate::lpi::AdoptionRefused;
use crate::{GicPlatform, Group, Interrupt, Route, SecurityView, SystemRegisters};
use gic_arch::{IntId, Lpi, Priority, icc};
use msi_types::explain::{
    self, Explanation, Fact, Obstacle, TableRegister, TargetState, Unexamined,
};
use msi_types::{Cpu, HwIrq};

impl<P: GicPlatform> Gic<P> {
    /// Explains whether the interface of the calling CPU, `cpu`, signals an interrupt with this
    /// priority. Checks the group, the priority mask, the running priority and, if `registers`
    /// [can read it](SystemRegisters::irqs_masked), the CPU's exception mask.
    ///
    /// Context: any.
    pub fn explain_interface<S: SystemRegisters>(
        &self,
        (cpu, registers): (Cpu, &S),
        interrupt: HwIrq,
        priority: Priority,
    ) -> Explanation {
        let interface = self.cpu_interface(registers);
        let state = InterfaceState {
            group: group_name(self.distributor.view().own_group()),
            is_enabled: registers.read(icc::IGRPEN1).enable(),
            mask: interface.mask(),
            running: interface.running_priority(),
            highest_pending: interface.highest_pending(),
            irqs_masked: registers.irqs_masked(),
            binary_point: registers.read(icc::BPR1).to_le_bytes()[0],
        };
        state.explain(cpu, interrupt, priority)
    }

    /// Explains how far a pending LPI that targets `cpu` gets.
    ///
    /// Context: task; may sleep.
    pub(crate) fn explain_lpi(&self, lpi: Lpi, cpu: Cpu) -> Explanation {
        let stopped = Explanation::stopped;
        let on = self.redistributor_frames(cpu).ok().filter(|_| self.is_on(cpu));
        let Some(redistributor) = on else { return stopped(Obstacle::Offline { cpu }) };
        let found = self.explain_target(cpu).with_unexamined(Unexamined::TableCaches);
        let is_on = redistributor.lpis_enabled();
        let foreign = || self.lpis.as_ref().ok()?.foreign_table(redistributor);
        let obstacle = match foreign() {
            _ if !is_on => Some(Obstacle::LpisDisabled { cpu }),
            table => table.and_then(|table| other_table(table, cpu)),
        };
        let found = found.with_obstacles(&[obstacle]);
        let interrupt = lpi.intid().hwirq();
        let bits = redistributor.lpi_bases().0.id_bits_minus_one() + 1;
        let config = self.lpis.as_ref().ok().and_then(|lpis| lpis.config(lpi).ok());
        let Some(config) = config.filter(|_| !is_on || lpi.get() >> bits.min(31) == 0) else {
            return found.with_obstacle(Obstacle::BeyondTable { interrupt, bits });
        };
        if config.enable() {
            found.with_fact(Fact::Enabled(config.priority().get()))
        } else {
            found.with_obstacle(Obstacle::Disabled { interrupt })
        }
    }

    /// Explains how far a wired interrupt gets.
    ///
    /// Context: task; may sleep.
    pub(super) fn explain_wired(&self, hwirq: HwIrq) -> Explanation {
        let stopped = Explanation::stopped;
        let Ok(interrupt) = self.wired(hwirq) else {
            return stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        let cpu = self.platform.cpu();
        if interrupt.intid().is_private() && !self.is_on(cpu) {
            return stopped(Obstacle::Offline { cpu });
        }
        let mut state = explain_state(&interrupt, self.distributor.view());
        if state.is_idle()
            && let Some(other) = self.unclaimed_pending()
        {
            state = state.with_fact(Fact::OtherPending(other.hwirq()));
        }
        state.merge(match self.distributor.route(interrupt.intid()) {
            _ if IntId::from(hwirq).is_private() => self.explain_target(cpu),
            Ok(Route::To(affinity)) => {
                let target = self.cpus().find(|cpu| self.affinity(*cpu) == Some(affinity));
                let missing = Obstacle::NoTarget { affinity: affinity.mpidr() };
                target.map_or(stopped(missing), |cpu| self.explain_target(cpu))
            }
            Ok(Route::AnyParticipating) | Err(_) => {
                Explanation::new().with_obstacles(&[self.withheld()])
            }
        })
    }

    /// Returns a pending SPI that no driver has claimed.
    fn unclaimed_pending(&self) -> Option<IntId> {
        let spis = (32..1020).map(IntId::new);
        let is_pending =
            |intid: &IntId| self.distributor.interrupt(*intid).is_ok_and(|spi| spi.is_pending());
        spis.filter(is_pending).find(|intid| {
            let is_claimed = self.claims.with(&*self.platform, |claims| claims.has(*intid));
            !is_claimed
        })
    }

    fn explain_target(&self, cpu: Cpu) -> Explanation {
        let stopped = Explanation::stopped;
        let on = self.redistributor_frames(cpu).ok().filter(|_| self.is_on(cpu));
        let Some(redistributor) = on else { return stopped(Obstacle::Offline { cpu }) };
        let asleep = redistributor.is_asleep().then_some(Obstacle::Asleep { cpu });
        let target = match asleep {
            Some(_) => Fact::Routed(cpu),
            None => Fact::Target(cpu, TargetState::Awake),
        };
        Explanation::new().with_fact(target).with_obstacles(&[asleep, self.withheld()])
    }

    /// Returns an obstacle if the distributor does not forward the driver's group.
    fn withheld(&self) -> Option<Obstacle> {
        let group = group_name(self.distributor.view().own_group());
        let ctlr = self.distributor.withheld_group()?;
        Some(Obstacle::GroupDisabled { group, ctlr: ctlr.into() })
    }
}

/// Explains an interrupt's state, as read from the register frame that holds it.
fn explain_state<M: crate::Mmio>(interrupt: &Interrupt<'_, M>, view: SecurityView) -> Explanation {
    let hwirq = interrupt.intid().hwirq();
    let foreign = interrupt.group(view).filter(|group| *group != view.own_group());
    let wrong = |group| Obstacle::WrongGroup { interrupt: hwirq, group: group_name(group) };
    interrupt.explain().with_obstacles(&[foreign.map(wrong)])
}

/// Returns the obstacle for a table register that does not name the driver's table.
const fn other_table(table: AdoptionRefused, cpu: Cpu) -> Option<Obstacle> {
    let (register, found, expected) = match table {
        AdoptionRefused::OtherConfigTable { found, expected } => {
            (TableRegister::Propbaser(cpu), found, expected)
        }
        AdoptionRefused::OtherPendingTable { found, expected } => {
            (TableRegister::Pendbaser(cpu), found, expected)
        }
        _ => return None,
    };
    Some(Obstacle::OtherTable { register, found, expected })
}

/// Converts a group to its number in `ICC_IGRPEN<n>_EL1`. Secure Group 1 is Group 1.
const fn group_name(group: Group) -> explain::Group {
    match group {
        Group::Zero => explain::Group::Zero,
        Group::One | Group::SecureOne => explain::Group::One,
    }
}
