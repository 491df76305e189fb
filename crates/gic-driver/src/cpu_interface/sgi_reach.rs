//! Set of PEs that an SGI can reach, which depends on the distributor and the CPU interface.

use crate::GicError;
use gic_arch::icc::Ctlr;
use gic_arch::{Affinity, gicd};

/// Range of affinities to which an SGI can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SgiReach {
    range_selector: bool,
    aff3: bool,
}

impl SgiReach {
    pub(super) const UNLIMITED: Self = Self { range_selector: true, aff3: true };
    /// Affinities that every implementation supports.
    pub(super) const NONE: Self = Self { range_selector: false, aff3: false };

    pub(super) fn of_interface(control: Ctlr) -> Self {
        Self { range_selector: control.rss(), aff3: control.a3v() }
    }

    pub(super) fn of_distributor(typer: gicd::Typer) -> Self {
        Self { range_selector: typer.rss(), aff3: typer.a3v() }
    }

    pub(super) fn limited_by(self, other: Self) -> Self {
        Self {
            range_selector: self.range_selector && other.range_selector,
            aff3: self.aff3 && other.aff3,
        }
    }

    pub(super) fn check(self, target: Affinity) -> Result<(), GicError> {
        let [aff3, _, _, aff0] = target.levels();
        if aff0 >= 16 && !self.range_selector {
            return Err(GicError::SgiOutOfReach(
                target,
                "Aff0 above 15 needs the range selector (RSS)",
            ));
        }
        if aff3 != 0 && !self.aff3 {
            return Err(GicError::SgiOutOfReach(target, "Aff3 is not supported here (A3V)"));
        }
        Ok(())
    }
}
