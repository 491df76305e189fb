//! `GICR_VPENDBASER` and `GICR_VPROPBASER` (IHI 0069 §12.11): eviction of a vPE that a hypervisor
//! left resident.

use super::Redistributor;
use crate::{GicError, Mmio, MmioExt, Platform};
use gic_arch::gicr::vlpi;

impl<M: Mmio> Redistributor<M> {
    /// Adds the frame VLPI_base of a redistributor with virtual LPIs, mapped as `mmio`.
    #[must_use]
    pub fn with_vlpi_frame(self, mmio: M) -> Self {
        Self { vlpi_frame: Some(mmio), ..self }
    }

    /// Makes the redistributor stop accessing the memory of vPEs. A hypervisor may have been
    /// replaced (kexec) while a vPE was resident, and the redistributor can write the vPE's pending
    /// table until the vPE is evicted. The eviction does not request a doorbell interrupt. Does
    /// nothing without [VLPI_base](Self::with_vlpi_frame).
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `GICR_VPENDBASER.Dirty` stays set.
    pub fn evict_vpe<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        let Some(frame) = &self.vlpi_frame else { return Ok(()) };
        let settled = || !frame.read(vlpi::VPENDBASER).dirty();
        if frame.read(vlpi::VPENDBASER).valid() {
            // Valid must not change while an earlier change is taking effect. Dirty indicates this
            // only if `GICR_TYPER.Dirty` is set.
            if self.typer.dirty() {
                self.frame.wait(platform, "GICR_VPENDBASER.Dirty = 0", settled)?;
            }
            let resident = frame.read(vlpi::VPENDBASER);
            let leaving = resident.with_valid(false).with_pending_last(self.typer.rvpeid());
            frame.write(vlpi::VPENDBASER, leaving);
            self.frame.wait(platform, "GICR_VPENDBASER.Dirty = 0", settled)?;
        }
        if self.typer.rvpeid() {
            let table = frame.read(vlpi::VPROPBASER);
            if table.valid() {
                frame.write(vlpi::VPROPBASER, table.with_valid(false));
            }
        }
        Ok(())
    }
}
