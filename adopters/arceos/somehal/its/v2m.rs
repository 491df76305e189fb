//! MSIs by GICv2m frames, which `somehal` does not support, on top of `somehal`'s own GICv2 driver.

use alloc::sync::Arc;
use core::num::NonZeroU16;

use arm_gic_driver::{IntId, v2::Gic};
use gic_driver::msi_types::{Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};
use gic_driver::{V2m, V2mFrame};
use irq_framework::{IrqDomainId, IrqId};
use rdrive::{module_driver, probe::OnProbeError, register::ProbeFdt};

use super::super::v3::ArceOs;
use crate::irq::{IrqAffinity, IrqTrigger};

module_driver!(
    name: "GICv2m",
    level: ProbeLevel::PreKernel,
    priority: ProbePriority::MSI,
    probe_kinds: &[
        ProbeKind::Fdt {
            compatibles: &["arm,gic-v2m-frame"],
            on_probe: probe_frame
        }
    ],
);

fn probe_frame(probe: ProbeFdt<'_>) -> Result<(), OnProbeError> {
    let (info, dev) = probe.into_parts();
    let frame = V2mFrame::new(super::first_reg(&info)?);
    let gic = Arc::new(GicV2(super::gic_domain()?));
    let v2m = V2m::new(Arc::new(ArceOs), gic, &[frame]).map_err(super::probe_error)?;
    super::register(&dev, Arc::new(v2m))
}

/// ArceOS's own GICv2, identified by its IRQ domain.
struct GicV2(IrqDomainId);

impl GicV2 {
    fn irq(&self, hwirq: HwIrq) -> IrqId {
        IrqId::new(self.0, irq_framework::HwIrq(hwirq.get()))
    }

    /// Accesses an SPI that the frame has claimed.
    fn with<R>(&self, hwirq: HwIrq, work: impl FnOnce(&mut Gic, IntId) -> R) -> Option<R> {
        let spi = IntId::spi(hwirq.get().checked_sub(32)?);
        super::super::with_gic_domain::<Gic, _>(self.0, |gic| work(gic, spi)).ok()
    }

    fn set_enabled(&self, hwirq: HwIrq, enabled: bool) {
        if let Err(error) = super::super::irq_set_enable(self.irq(hwirq), enabled) {
            warn!("SPI {hwirq}: {error}");
        }
    }
}

impl WiredParent for GicV2 {
    /// Checks that the interrupts exist. ArceOS has no record of their owners.
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        let end = first.get() + u32::from(count.get());
        match self.with(first, |gic, _| end <= gic.max_intid()) {
            Some(true) => Ok(()),
            _ => Err(MsiError::UnknownVector(first)),
        }
    }

    fn release(&self, first: HwIrq, count: NonZeroU16) {
        (0..count.get()).filter_map(|index| first.checked_add(index.into())).for_each(|hwirq| {
            self.mask(hwirq);
            self.set_pending(hwirq, Pending::Clear);
        });
    }

    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError> {
        let trigger = match trigger {
            Trigger::Edge => IrqTrigger::Edge,
            Trigger::Level => IrqTrigger::Level,
        };
        super::super::irq_set_trigger(self.irq(hwirq), trigger)
            .map_err(|_| MsiError::UnknownVector(hwirq))
    }

    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError> {
        let affinity = IrqAffinity::Fixed { cpu_id: cpu.index() };
        super::super::irq_set_affinity(self.irq(hwirq), affinity)
            .map_err(|_| MsiError::NotReachable(cpu, "ArceOS's GICv2 refused it"))
    }

    fn mask(&self, hwirq: HwIrq) {
        self.set_enabled(hwirq, false);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.set_enabled(hwirq, true);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.with(hwirq, |gic, spi| gic.set_pending(spi, pending == Pending::Set));
    }

    fn is_pending(&self, hwirq: HwIrq) -> bool {
        self.with(hwirq, |gic, spi| gic.is_pending(spi)).unwrap_or(false)
    }
}
