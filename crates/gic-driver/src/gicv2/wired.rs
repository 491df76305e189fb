//! Wired interrupts on a GICv2, and explanations of how far they get through the distributor and
//! the target's CPU interface.

use super::GicV2;
use crate::claims::{Claims, PRIVATE, nth};
use crate::cpu_interface::InterfaceState;
use crate::{Mmio, MmioExt, Platform};
use core::num::NonZeroU16;
use gic_arch::{IntId, Priority, gicc, gicd};
use msi_types::explain::{Explanation, Fact, Group, Obstacle, TargetState};
use msi_types::{ControllerFault, Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};

/// Operations on an SGI or PPI act on the calling CPU's instance. A claim on an SGI or PPI covers
/// all CPUs. SGIs and PPIs cannot be moved to another CPU.
impl<P: Platform> WiredParent for GicV2<P> {
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            self.wired(nth(first, offset)?.hwirq())?;
        }
        self.claims.with(&self.platform, |claims| claims.claim_all(first, count))?;
        // The security view may not be able to configure an SPI.
        let prepare = |offset| {
            let hwirq = nth(first, offset)?.hwirq();
            if IntId::from(hwirq).is_private() {
                return Ok(());
            }
            let taken = self.wired(hwirq)?.take(self.config.priority);
            taken.map_err(|_| MsiError::UnknownVector(hwirq))
        };
        let disclaim = |claims: &mut Claims| claims.release_all(first, count.get());
        let prepared = (0..count.get()).try_for_each(prepare);
        prepared.inspect_err(|_| self.claims.with(&self.platform, disclaim))
    }

    fn release(&self, first: HwIrq, count: NonZeroU16) {
        for offset in 0..count.get() {
            if let Ok(intid) = nth(first, offset) {
                self.mask(intid.hwirq());
                self.set_pending(intid.hwirq(), Pending::Clear);
            }
        }
        self.claims.with(&self.platform, |claims| claims.release_all(first, count.get()));
    }

    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError> {
        let fault = ControllerFault {
            kind: "gicv2",
            base: self.config.distributor,
            operation: "set trigger",
            device: None,
            event: None,
            reason: if IntId::from(hwirq).is_private() {
                PRIVATE
            } else {
                "the interrupt is enabled, or the hardware fixes the trigger"
            },
        };
        let interrupt = self.wired(hwirq)?;
        interrupt.set_trigger(&self.platform, trigger).map_err(|_| MsiError::Controller(fault))
    }

    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError> {
        if IntId::from(hwirq).is_private() {
            return Err(MsiError::NotReachable(cpu, PRIVATE));
        }
        self.wired(hwirq)?;
        let target = self.target_of(cpu).ok_or(MsiError::NotReachable(cpu, "it is off"))?;
        let field = gicd::ITARGETSR.locate(hwirq.into()).ok_or(MsiError::UnknownVector(hwirq))?;
        // IHI 0048 §4.3.12: the target may be written at any time, and a pending interrupt is then
        // signaled to the new target.
        self.frame.mmio.write8(field.byte_offset(), target.get());
        // Read the target back, because the read returns only after the write has reached the
        // distributor.
        let read_back = field.extract(self.frame.mmio.read(field.register()));
        // With a single CPU, `GICD_ITARGETSR` is RAZ/WI.
        if read_back != u32::from(target.get()) && self.typer.cpu_number() != 0 {
            return Err(MsiError::NotReachable(cpu, "the distributor does not accept this target"));
        }
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        if let Ok(interrupt) = self.wired(hwirq) {
            // `disable` can't fail here: a GICv2 has no `RWP` to wait for.
            let _ = interrupt.disable(&self.platform);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if let Ok(interrupt) = self.wired(hwirq) {
            interrupt.enable();
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        if let Ok(interrupt) = self.wired(hwirq) {
            interrupt.set_pending(pending);
        }
    }

    fn is_pending(&self, hwirq: HwIrq) -> bool {
        self.wired(hwirq).is_ok_and(|interrupt| interrupt.is_pending())
    }

    fn has_private(&self, hwirq: HwIrq) -> bool {
        IntId::from(hwirq).is_private() && self.wired(hwirq).is_ok()
    }

    fn explain(&self, hwirq: HwIrq) -> Explanation {
        let Ok(interrupt) = self.wired(hwirq) else {
            return Explanation::stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        interrupt.explain().merge(self.explain_target(hwirq))
    }
}

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
