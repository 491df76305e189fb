//! Software-generated interrupts: IPIs.

use super::sgi_reach::SgiReach;
use super::{CpuInterface, EoiMode};
use crate::{GicError, SystemRegisters};
use gic_arch::icc::{self, Sgi};
use gic_arch::{Affinity, SgiId};

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

    /// Sends an SGI to several PEs. Neighbours in `targets` that one register write can reach share
    /// it: the same Aff3, Aff2 and Aff1, and the same sixteen of Aff0. Ascending order needs the
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
