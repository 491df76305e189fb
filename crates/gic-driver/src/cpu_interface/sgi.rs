//! Software-generated interrupts (SGIs), which kernels use as IPIs.

use super::{CpuInterface, EoiMode, SgiReach};
use crate::{GicError, SystemRegisters};
use gic_arch::icc::{self, Sgi};
use gic_arch::{Affinity, SgiId};

/// SGIs are sent as Group 1 interrupts in the sender's security state. Stores made before sending
/// are visible to the receiver.
impl<S: SystemRegisters, E: EoiMode> CpuInterface<S, E> {
    /// Sends an SGI to one PE, which may be this one.
    ///
    /// # Errors
    /// [`GicError::SgiOutOfReach`] if this distributor or CPU interface cannot address the PE.
    pub fn send(&self, sgi: SgiId, target: Affinity) -> Result<(), GicError> {
        self.check_reach([target])?;
        self.registers.write(icc::SGI1R, Sgi::to(sgi.get(), target));
        Ok(())
    }

    /// Sends an SGI to several PEs. Consecutive `targets` share a register write if they agree in
    /// Aff3, Aff2 and Aff1 and their Aff0 is in the same range of sixteen, so ascending order needs
    /// the fewest writes.
    ///
    /// # Errors
    /// [`GicError::SgiOutOfReach`] if a PE cannot be addressed; in this case no SGI is sent.
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

    /// Sends an SGI to all PEs except this one.
    pub fn send_to_others(&self, sgi: SgiId) {
        self.registers.write(icc::SGI1R, Sgi::new().with_intid(sgi.get()).with_all_but_self(true));
    }

    /// Checks that both the distributor and this CPU interface can address all targets. Reads
    /// `ICC_CTLR_EL1`, which may trap, only if a target needs an optional feature.
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
