//! The registers that only redistributors with Direct LPIs have (IHI 0069 §12.11: `GICR_SETLPIR`, `GICR_CLRLPIR`,
//! `GICR_INVLPIR`, `GICR_INVALLR`, `GICR_SYNCR`).

use crate::{Mmio, MmioExt, Platform, Redistributor, TimedOut, wait_until};
use gic_arch::{Lpi, gicr};

/// These registers of one redistributor. Having it proves that they exist.
#[derive(Debug)]
pub(super) struct Registers<'a, M> {
    redistributor: &'a Redistributor<M>,
}

impl<'a, M: Mmio> Registers<'a, M> {
    /// `None` where `GICR_TYPER.DirectLPI` is 0: whatever is at their offsets then is not to be touched.
    pub(super) fn of(redistributor: &'a Redistributor<M>) -> Option<Self> {
        redistributor.typer().direct_lpi().then_some(Self { redistributor })
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

    /// Begins to forget the configuration of an LPI. [`sync`](Self::sync) waits until it is done.
    pub(super) fn invalidate(&self, lpi: Lpi) {
        self.redistributor.mmio().write(gicr::INVLPIR, value(lpi));
    }

    /// Begins to forget the configurations of all LPIs.
    pub(super) fn invalidate_all(&self) {
        self.redistributor.mmio().write(gicr::INVALLR, 0);
    }

    /// Waits until every invalidation that was begun here is done.
    pub(super) fn sync<P: Platform>(&self, platform: &P) -> Result<(), TimedOut> {
        wait_until(platform, "SYNCR.Busy = 0", || !self.redistributor.mmio().read(gicr::SYNCR).busy())
    }
}

/// The `pINTID` field; all others are zero for physical LPIs.
fn value(lpi: Lpi) -> u64 {
    lpi.get().into()
}
