//! Interrupt explanations that include the CPU interface, whose registers only its own CPU can
//! read.

use crate::irqchip::Irqchip;
use gic_arch::Priority;
use gic_driver::cpu_interface::EoiMode;
use gic_driver::{GicPlatform, SystemRegisters};
use irq_domain::Irq;
use msi_types::explain::{Explanation, Fact};
use msi_types::{Cpu, HwIrq};

impl<P: GicPlatform, E: EoiMode> Irqchip<P, E> {
    /// Explains why an interrupt's handler does not run, like
    /// [`Interrupts::explain`](irq_domain::Interrupts::explain). If the interrupt is routed to the
    /// calling CPU, `cpu`, also examines this CPU's interface. The caller must not migrate to
    /// another CPU during the call. Returns `None` if the interrupt does not exist.
    ///
    /// If the interrupt is routed to another CPU, that CPU's interface is not examined. To include
    /// it, a kernel can send an IPI to that CPU, which calls
    /// [`explain_cpu_interface`](Self::explain_cpu_interface).
    ///
    /// Context: task; may sleep.
    pub fn explain(
        &self,
        irq: Irq,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Option<Explanation> {
        Some(self.explain_cpu_interface(self.interrupts.explain(irq)?, cpu, registers))
    }

    /// Adds the interface of the calling CPU, `cpu`, to an explanation, if the interrupt reaches
    /// this CPU. On a GICv2, `registers` is used only to read whether IRQ exceptions are
    /// [masked](SystemRegisters::irqs_masked).
    ///
    /// Context: any.
    pub fn explain_cpu_interface(
        &self,
        explanation: Explanation,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Explanation {
        match signal_at(&explanation, cpu) {
            Some((interrupt, priority)) => {
                explanation.merge(self.gic.explain_interface((cpu, registers), interrupt, priority))
            }
            None => explanation,
        }
    }
}

/// Returns the interrupt and its priority, if the explanation passes all stages up to this target.
fn signal_at(explanation: &Explanation, cpu: Cpu) -> Option<(HwIrq, Priority)> {
    let (mut interrupt, mut priority, mut here) = (None, None, false);
    for fact in explanation.facts() {
        match fact {
            Fact::Event { interrupt: known, .. }
            | Fact::MessageIntid(known)
            | Fact::Input(known) => {
                interrupt = Some(known);
            }
            Fact::Enabled(known) => priority = Some(Priority::new(known)),
            Fact::Target(target, _) => here = target == cpu,
            _ => {}
        }
    }
    interrupt.zip(priority).filter(|_| here)
}
