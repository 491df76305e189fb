//! The registers that only redistributors with Direct LPIs have (IHI 0069 §12.11: `GICR_SETLPIR`,
//! `GICR_CLRLPIR`). Such redistributors also have the registers of
//! [invalidations](crate::redistributor).

use crate::{Mmio, MmioExt, Redistributor};
use gic_arch::{Lpi, gicr};

/// These registers of one redistributor. Having it proves that they exist.
#[derive(Debug)]
pub(super) struct DirectLpiRegisters<'a, M> {
    redistributor: &'a Redistributor<M>,
}

impl<'a, M: Mmio> DirectLpiRegisters<'a, M> {
    /// `None` where `GICR_TYPER.DirectLPI` is 0: whatever is at their offsets then is not to be
    /// touched.
    pub(super) fn of(redistributor: &'a Redistributor<M>) -> Option<Self> {
        redistributor.typer().direct_lpi().then_some(Self { redistributor })
    }

    pub(super) fn redistributor(&self) -> &'a Redistributor<M> {
        self.redistributor
    }

    /// Physical address of `GICR_SETLPIR`.
    pub(super) fn doorbell(&self) -> u64 {
        self.redistributor.address() + u64::from(gicr::SETLPIR.offset())
    }

    /// Makes an LPI pending here. No effect if it is.
    pub(super) fn set(&self, lpi: Lpi) {
        self.redistributor.mmio().write(gicr::SETLPIR, value(lpi));
    }

    /// Makes an LPI not pending here. No effect if it is not.
    pub(super) fn clear(&self, lpi: Lpi) {
        self.redistributor.mmio().write(gicr::CLRLPIR, value(lpi));
    }
}

/// The `pINTID` field; all others are zero for physical LPIs.
fn value(lpi: Lpi) -> u64 {
    lpi.get().into()
}
