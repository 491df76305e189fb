//! `GICR_VPENDBASER` and `GICR_VPROPBASER` (IHI 0069 §12.11): evicts a vPE that a hypervisor left
//! resident.

use super::Redistributor;
use crate::{GicError, Mmio, MmioExt, Platform};
use gic_arch::gicr::vlpi;

impl<M: Mmio> Redistributor<M> {
    /// Adds a redistributor's VLPI_base frame (for virtual LPIs), mapped as `mmio`.
    #[must_use]
    pub fn with_vlpi_frame(self, mmio: M) -> Self {
        Self { vlpi_frame: Some(mmio), ..self }
    }

    /// Makes the redistributor stop accessing vPE memory. If a hypervisor was replaced (kexec)
    /// while a vPE was resident, the redistributor may write to the vPE's pending table until the
    /// vPE is evicted. The eviction does not request a doorbell interrupt. No-op without
    /// [VLPI_base](Self::with_vlpi_frame).
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `GICR_VPENDBASER.Dirty` stays set.
    pub fn evict_vpe<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        let Some(frame) = &self.vlpi_frame else { return Ok(()) };
        let settled = || !frame.read(vlpi::VPENDBASER).dirty();
        if frame.read(vlpi::VPENDBASER).valid() {
            // `Valid` must not be changed while an earlier change is still taking effect. `Dirty`
            // shows this, but only if `GICR_TYPER.Dirty` is set.
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
