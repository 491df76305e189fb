//! Creation of the driver for one redistributor from its mapped frames.

use super::Redistributor;
use super::invalidation_progress::Invalidations;
use crate::frame::Frame;
use crate::{Block, GicError, Mmio, MmioExt};
use gic_arch::gicr;

impl<M: Mmio> Redistributor<M> {
    /// Creates the driver for a redistributor. `mmio` maps its RD_base and SGI_base frames (128
    /// KiB) at physical `address`. Only reads registers.
    ///
    /// # Errors
    /// [`GicError::WrongRevision`] if the frame does not belong to a GICv3 or GICv4.
    pub fn new(mmio: M, address: u64) -> Result<Self, GicError> {
        let frame = Frame::probe(mmio, Block::Redistributor(address))?;
        let typer = frame.mmio.read(gicr::TYPER);
        let invalidations = Invalidations::default();
        Ok(Self { frame, address, typer, waker: true, invalidations, vlpi_frame: None })
    }

    /// Makes the driver leave `GICR_WAKER` alone, because firmware woke the redistributor
    /// ([`WakerUnusable`](crate::errata::Erratum::WakerUnusable)).
    pub fn leave_waker(&mut self) {
        self.waker = false;
    }
}
