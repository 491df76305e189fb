//! Explanations of how far an interrupt gets through the distributor and the target's CPU
//! interface.

use super::GicV2;
use crate::cpu_interface::InterfaceState;
use crate::{MmioExt, Platform};
use gic_arch::{IntId, Priority, gicc, gicd};
use msi_types::explain::{Explanation, Fact, Group, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq};

impl<P: Platform> GicV2<P> {
    /// Explains whether the interface of the calling CPU, `cpu`, signals an interrupt with this
    /// priority. Checks the enable bit, the priority mask, the running priority and `irqs_masked`,
    /// which states whether the CPU masks IRQ exceptions, if known.
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
            // In the Group 0 view, the register selects one bit more.
            binary_point: self.interface.read(gicc::BPR).to_le_bytes()[0].saturating_add(1),
        };
        state.explain(cpu, interrupt, priority)
    }

    /// Explains how far an interrupt gets: an SPI, or one of the calling CPU's SGIs or PPIs.
    pub(super) fn explain_wired(&self, hwirq: HwIrq) -> Explanation {
        let Ok(interrupt) = self.wired(hwirq) else {
            return Explanation::stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        interrupt.explain().merge(self.explain_target(hwirq))
    }

    /// Explains the target of an interrupt. A private interrupt targets the calling CPU.
    fn explain_target(&self, hwirq: HwIrq) -> Explanation {
        let targets = if IntId::from(hwirq).is_private() {
            self.own_target(Cpu::default()).map_or(0, |own| own.get().into())
        } else {
            let field = gicd::ITARGETSR.locate(hwirq.into());
            field.map_or(0, |field| field.extract(self.frame.mmio.read(field.register())))
        };
        let target = match self.typer.cpu_number() {
            0 => Some(Cpu::new(0)),
            _ => self.cpus().find(|cpu| self.reaches(targets, *cpu)),
        };
        let Some(cpu) = target else {
            return Explanation::stopped(Obstacle::NoTarget { affinity: targets.into() });
        };
        self.explain_forwarding().with_fact(Fact::Target(cpu, TargetState::Awake))
    }

    fn explain_forwarding(&self) -> Explanation {
        let ctlr = self.frame.mmio.read(gicd::CTLR);
        if ctlr.enable_grp0() {
            return Explanation::new();
        }
        Explanation::stopped(Obstacle::GroupDisabled { group: self.own_group(), ctlr: ctlr.into() })
    }

    /// Returns `true` if `cpu` is on and `targets` includes its interface.
    fn reaches(&self, targets: u32, cpu: Cpu) -> bool {
        self.target_of(cpu).is_some_and(|target| targets & u32::from(target.get()) != 0)
    }

    /// Returns the group that bit 0 of `GICD_CTLR` and `GICC_CTLR` enables. With the Security
    /// Extensions, the Non-secure copies of these registers enable Group 1.
    fn own_group(&self) -> Group {
        if self.typer.security_extn() { Group::One } else { Group::Zero }
    }
}
