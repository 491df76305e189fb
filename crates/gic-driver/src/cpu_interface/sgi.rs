//! Software-generated interrupts: IPIs.

use super::{CpuInterface, EoiMode};
use crate::{GicError, SystemRegisters};
use gic_arch::icc::{self, Ctlr, Sgi};
use gic_arch::{Affinity, SgiId, gicd};

/// The affinities that an SGI can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SgiReach {
    range_selector: bool,
    aff3: bool,
}

impl SgiReach {
    pub(super) const UNLIMITED: Self = Self { range_selector: true, aff3: true };
    /// The least that every implementation has.
    const NONE: Self = Self { range_selector: false, aff3: false };

    fn of_interface(control: Ctlr) -> Self {
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

    fn check(self, target: Affinity) -> Result<(), GicError> {
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

/// SGIs go to Group 1 of the sender's security state. What the sender stored before is visible to
/// the receiver.
impl<S: SystemRegisters, E: EoiMode> CpuInterface<S, E> {
    /// Sends an SGI to one PE, which may be this one.
    ///
    /// # Errors
    /// [`GicError::SgiOutOfReach`].
    pub fn send(&self, sgi: SgiId, target: Affinity) -> Result<(), GicError> {
        self.check_reach([target])?;
        self.registers.write(icc::SGI1R, Sgi::to(sgi.get(), target));
        Ok(())
    }

    /// Sends an SGI to several PEs. Neighbours in `targets` that one register write can reach (the
    /// same Aff3, Aff2 and Aff1, and the same sixteen of Aff0) share it: ascending order needs the
    /// fewest.
    ///
    /// # Errors
    /// [`GicError::SgiOutOfReach`]: none is sent then.
    pub fn send_to(
        &self,
        sgi: SgiId,
        targets: impl IntoIterator<Item = Affinity, IntoIter: Clone>,
    ) -> Result<(), GicError> {
        let targets = targets.into_iter();
        self.check_reach(targets.clone())?;
        let mut collected: Option<Sgi> = None;
        for target in targets {
            let one = Sgi::to(sgi.get(), target);
            collected = Some(match collected {
                Some(many) if many.with_target_list(0) == one.with_target_list(0) => {
                    many.with_target_list(many.target_list() | one.target_list())
                }
                Some(many) => {
                    self.registers.write(icc::SGI1R, many);
                    one
                }
                None => one,
            });
        }
        if let Some(many) = collected {
            self.registers.write(icc::SGI1R, many);
        }
        Ok(())
    }

    /// Sends an SGI to all PEs but this one.
    pub fn send_to_others(&self, sgi: SgiId) {
        self.registers.write(icc::SGI1R, Sgi::new().with_intid(sgi.get()).with_all_but_self(true));
    }

    /// Can both the distributor and this CPU interface reach all of them? The interface is asked
    /// only if one of them needs more than every implementation has: reading `ICC_CTLR_EL1` may
    /// trap.
    fn check_reach(&self, targets: impl IntoIterator<Item = Affinity>) -> Result<(), GicError> {
        let mut reach = None;
        for target in targets.into_iter().filter(|target| SgiReach::NONE.check(*target).is_err()) {
            let reach = reach.get_or_insert_with(|| {
                self.limit.limited_by(SgiReach::of_interface(self.registers.read(icc::CTLR)))
            });
            reach.check(target)?;
        }
        Ok(())
    }
}
