//! Explanations: how far an interrupt gets at the distributor and at the target's CPU interface.

use super::GicV2;
use crate::cpu_interface::InterfaceState;
use crate::{MmioExt, Platform};
use gic_arch::{IntId, Priority, gicc, gicd};
use msi_types::explain::{Explanation, Fact, Group, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq};

impl<P: Platform> GicV2<P> {
    /// Explains whether the interface of the calling CPU, `cpu`, lets an interrupt of this priority
    /// through: its enable bit, priority mask and running priority, and whether the CPU masks IRQ
    /// exceptions, if the caller knows.
    ///
    /// Context: any.
    pub fn explain_interface(
        &self,
        (cpu, irqs_masked): (Cpu, Option<bool>),
        interrupt: HwIrq,
        priority: Priority,
    ) -> Explanation {
        let interface = self.cpu_interface();
        let state = InterfaceState {
            group: self.own_group(),
            is_enabled: self.interface.read(gicc::CTLR).enable_grp0(),
            mask: interface.mask(),
            running: interface.running_priority(),
            highest_pending: interface.highest_pending(),
            irqs_masked,
        };
        state.explain(cpu, interrupt, priority)
    }

    /// Explains how far a wired interrupt gets: an SPI, or an SGI or PPI of the calling CPU.
    pub(super) fn explain_wired(&self, hwirq: HwIrq) -> Explanation {
        let Ok(interrupt) = self.wired(hwirq) else {
            let missing = Obstacle::NoSuchInterrupt { interrupt: hwirq };
            return Explanation::new().with_obstacle(missing);
        };
        interrupt.explain().and_then(|| self.explain_target(hwirq))
    }

    /// Explains the target of an SPI. The driver does not know the number of the CPU that executes
    /// this, which is the target of a private interrupt.
    fn explain_target(&self, hwirq: HwIrq) -> Explanation {
        let field = gicd::ITARGETSR.locate(hwirq.into());
        let Some(field) = field.filter(|_| !IntId::from(hwirq).is_private()) else {
            return self.explain_forwarding();
        };
        let targets = field.extract(self.frame.mmio.read(field.register()));
        let target = match self.typer.cpu_number() {
            0 => Some(Cpu::new(0)),
            _ => self.cpus().find(|cpu| self.reaches(targets, *cpu)),
        };
        let Some(cpu) = target else {
            let missing = Obstacle::NoTarget { affinity: targets.into() };
            return Explanation::new().with_obstacle(missing);
        };
        let target = Explanation::new().with_fact(Fact::Target(cpu, TargetState::Awake));
        target.and_then(|| self.explain_forwarding())
    }

    fn explain_forwarding(&self) -> Explanation {
        let ctlr = self.frame.mmio.read(gicd::CTLR);
        if ctlr.enable_grp0() {
            return Explanation::new();
        }
        let disabled = Obstacle::GroupDisabled { group: self.own_group(), ctlr: ctlr.into() };
        Explanation::new().with_obstacle(disabled)
    }

    /// Returns `true` if the interface of `cpu`, which is on, is among the targets.
    fn reaches(&self, targets: u32, cpu: Cpu) -> bool {
        self.target_of(cpu).is_some_and(|target| targets & u32::from(target.get()) != 0)
    }

    /// Returns the group that bit 0 of the control registers enables: with two security states,
    /// that of Non-secure software.
    fn own_group(&self) -> Group {
        if self.typer.security_extn() { Group::One } else { Group::Zero }
    }
}
