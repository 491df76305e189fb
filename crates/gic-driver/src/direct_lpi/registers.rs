//! The registers that only redistributors with Direct LPIs have (IHI 0069 §12.11: `GICR_SETLPIR`,
//! `GICR_CLRLPIR`, `GICR_INVLPIR`, `GICR_INVALLR`, `GICR_SYNCR`).

use crate::{Mmio, MmioExt, Redistributor};
use gic_arch::{Lpi, gicr};

/// The configurations that a redistributor reads anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Invalidation {
    /// One LPI's (`GICR_INVLPIR`).
    One(Lpi),
    /// All LPIs' (`GICR_INVALLR`).
    All,
}

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

    /// Begins to read configurations anew. `Busy` is 0.
    pub(super) fn invalidate(&self, what: Invalidation) {
        match what {
            Invalidation::One(lpi) => self.redistributor.mmio().write(gicr::INVLPIR, value(lpi)),
            Invalidation::All => self.redistributor.mmio().write(gicr::INVALLR, 0),
        }
    }

    /// `true` while an invalidation is not complete (`GICR_SYNCR.Busy`).
    pub(super) fn is_busy(&self) -> bool {
        self.redistributor.mmio().read(gicr::SYNCR).busy()
    }
}

/// The `pINTID` field; all others are zero for physical LPIs.
fn value(lpi: Lpi) -> u64 {
    lpi.get().into()
}
