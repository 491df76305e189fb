//! Per-interrupt priorities.

use crate::error::PriorityError;
use crate::irqchip::Irqchip;
use gic_arch::{IntId, Lpi, Priority};
use gic_driver::{GicPlatform, ItsError};
use msi_types::HwIrq;

impl<P: GicPlatform, E> Irqchip<P, E> {
    /// Changes the priority of an interrupt, in the GIC's [security
    /// view](gic_driver::SecurityView). An LPI must be mapped by an MSI controller, and the two low
    /// bits of its priority are ignored. An SGI's or PPI's priority is per-CPU: it changes only on
    /// the calling CPU, and must be set again whenever that CPU is turned on.
    ///
    /// Kernels can implement pseudo-NMIs with this function: interrupts above a priority threshold
    /// are still signaled while the kernel masks all other interrupts with
    /// [`CpuInterface::mask_below`](gic_driver::CpuInterface::mask_below). A higher-priority
    /// interrupt also preempts a running handler if the kernel unmasks interrupts in the handler.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Any [`PriorityError`]. If the MSI controller does not respond, the priority may have changed
    /// in memory but not at the redistributor.
    pub fn set_priority(&self, hwirq: HwIrq, priority: Priority) -> Result<(), PriorityError> {
        match Lpi::try_from(hwirq.get()) {
            Ok(lpi) => self.set_lpi_priority(lpi, priority),
            Err(_) => Ok(self.gic.set_priority(IntId::from(hwirq), priority)?),
        }
    }

    fn set_lpi_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), PriorityError> {
        for its in self.msi.itses() {
            match its.set_priority(lpi, priority) {
                Err(ItsError::NotMapped(_)) => {}
                answer => return Ok(answer?),
            }
        }
        let direct_lpi = self.msi.direct_lpi().ok_or(PriorityError::NotMapped(lpi))?;
        direct_lpi.set_priority(lpi.intid().hwirq(), priority).map_err(PriorityError::DirectLpi)
    }
}
