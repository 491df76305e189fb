//! `GICR_VPENDBASER` and `GICR_VPROPBASER` (IHI 0069 §12.11): makes vPEs resident, and evicts a vPE
//! that a hypervisor left resident.

use super::Redistributor;
use crate::{GicError, Mmio, MmioExt, Platform};
use gic_arch::gicr::vlpi::{self, Vpendbaser, Vpropbaser};

/// A vPE's tables, for GICv4.0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VpeTables {
    /// Physical address of the configuration table of virtual LPIs.
    pub(crate) config: u64,
    /// Physical address of the pending table.
    pub(crate) pending: u64,
    pub(crate) id_bits: u8,
    /// `GICR_VPENDBASER.IDAI` when the vPE was last put, initially `false`.
    pub(crate) idai: bool,
}

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
        if frame.read(vlpi::VPENDBASER).valid() {
            self.leave(platform, frame)?;
        }
        if self.typer.rvpeid() {
            let table = frame.read(vlpi::VPROPBASER);
            if table.valid() {
                frame.write(vlpi::VPROPBASER, table.with_valid(false));
            }
        }
        Ok(())
    }

    /// Returns `true` if the redistributor implements GICv4.0 and its VLPI_base frame is mapped.
    pub(crate) fn can_load_vpes(&self) -> bool {
        self.vlpi_frame.is_some() && !self.typer.rvpeid()
    }

    /// Makes a vPE resident. No other vPE may be resident.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `GICR_VPENDBASER.Dirty` stays set.
    pub(crate) fn load_vpe<P: Platform>(
        &self,
        platform: &P,
        vpe: VpeTables,
    ) -> Result<(), GicError> {
        let Some(frame) = &self.vlpi_frame else { return Ok(()) };
        self.settle(platform, frame)?;
        // The redistributor accesses these tables in the same way as those of physical LPIs, whose
        // attributes the driver has negotiated.
        let (config, pending) = self.lpi_bases();
        let config = Vpropbaser::new()
            .with_id_bits_minus_one(vpe.id_bits - 1)
            .with_address(vpe.config)
            .with_inner_cache(config.inner_cache())
            .with_outer_cache(config.outer_cache())
            .with_shareability(config.shareability());
        frame.write(vlpi::VPROPBASER, config);
        let pending = Vpendbaser::new()
            .with_address(vpe.pending)
            .with_inner_cache(pending.inner_cache())
            .with_outer_cache(pending.outer_cache())
            .with_shareability(pending.shareability())
            .with_pending_last(true)
            .with_idai(vpe.idai)
            .with_valid(true);
        frame.write(vlpi::VPENDBASER, pending);
        self.settle(platform, frame)
    }

    /// Makes the resident vPE leave. Returns `GICR_VPENDBASER` from afterwards.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `GICR_VPENDBASER.Dirty` stays set.
    pub(crate) fn put_vpe<P: Platform>(&self, platform: &P) -> Result<Vpendbaser, GicError> {
        match &self.vlpi_frame {
            Some(frame) => self.leave(platform, frame),
            None => Ok(Vpendbaser::new()),
        }
    }

    /// Clears `Valid`, which must not be changed while an earlier change is still taking effect.
    fn leave<P: Platform>(&self, platform: &P, frame: &M) -> Result<Vpendbaser, GicError> {
        self.settle(platform, frame)?;
        let resident = frame.read(vlpi::VPENDBASER);
        let leaving = resident.with_valid(false).with_pending_last(self.typer.rvpeid());
        frame.write(vlpi::VPENDBASER, leaving);
        self.settled(platform, frame)?;
        Ok(frame.read(vlpi::VPENDBASER))
    }

    /// Waits until a change of `Valid` has taken effect, if `GICR_TYPER.Dirty` says that `Dirty`
    /// shows this for each change.
    fn settle<P: Platform>(&self, platform: &P, frame: &M) -> Result<(), GicError> {
        if self.typer.dirty() { self.settled(platform, frame) } else { Ok(()) }
    }

    fn settled<P: Platform>(&self, platform: &P, frame: &M) -> Result<(), GicError> {
        let is_settled = || !frame.read(vlpi::VPENDBASER).dirty();
        self.frame.wait(platform, "GICR_VPENDBASER.Dirty = 0", is_settled)
    }
}
