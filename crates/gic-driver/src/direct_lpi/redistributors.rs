//! Redistributor registers for direct LPIs (IHI 0069 §12.11: `GICR_SETLPIR`, `GICR_CLRLPIR`) and
//! invalidations. A sleeping redistributor's registers are never accessed.

use super::records::LpiBlock;
use crate::gic::GicWithLpis;
use crate::lpi::LpiError;
use crate::redistributor::Invalidation;
use crate::register_access::RegisterAccess;
use crate::{GicPlatform, MmioExt, Redistributor};
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::{Lpi, gicr};
use msi_types::{ControllerFault, Cpu, MsiError, MsiMessage};

/// Minimum number of LPIs for which the driver invalidates all LPIs at once instead of each one
/// separately.
const BULK: u16 = 16;

/// The redistributors, and the permissions to use their registers.
pub(super) struct DirectRedistributors<P: GicPlatform> {
    gic: GicWithLpis<P>,
    /// Permissions, indexed by CPU.
    access: Vec<RegisterAccess>,
}

impl<P: GicPlatform> DirectRedistributors<P> {
    /// Opens a GIC's redistributors, all of which must support direct LPIs.
    pub(super) fn new(gic: GicWithLpis<P>) -> Result<Self, DirectLpiError> {
        let mut found = 0;
        for redistributor in gic.cpus().filter_map(|cpu| gic.redistributor_frames(cpu).ok()) {
            if !redistributor.typer().direct_lpi() {
                return Err(DirectLpiError::NotDirect { address: redistributor.address() });
            }
            found += 1;
        }
        if found == 0 {
            return Err(DirectLpiError::NoRedistributors);
        }
        let access = try_collect(gic.cpus().map(|_| RegisterAccess::default()));
        Ok(Self { access: access.map_err(|_| DirectLpiError::NoMemory)?, gic })
    }

    pub(super) fn gic(&self) -> &GicWithLpis<P> {
        &self.gic
    }

    pub(super) fn platform(&self) -> &P {
        self.gic.platform()
    }

    /// Calls `f` with a CPU's redistributor. Returns `None` if the redistributor is asleep or about
    /// to sleep.
    pub(super) fn at<R>(
        &self,
        cpu: Cpu,
        f: impl FnOnce(&Redistributor<P::Mmio>) -> R,
    ) -> Option<R> {
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        let _guard = self.access(cpu)?.enter()?;
        Some(f(redistributor))
    }

    pub(super) fn access(&self, cpu: Cpu) -> Option<&RegisterAccess> {
        self.access.get(cpu.index())
    }

    pub(super) fn accepts(&self, cpu: Cpu) -> bool {
        self.access(cpu).is_some_and(RegisterAccess::accepts)
    }

    pub(super) fn check_accepts(&self, cpu: Cpu) -> Result<(), MsiError> {
        if self.accepts(cpu) {
            Ok(())
        } else {
            Err(MsiError::NotReachable(cpu, "LPIs are off at its redistributor"))
        }
    }

    pub(super) fn fault_at(
        &self,
        cpu: Cpu,
        operation: &'static str,
        reason: &'static str,
    ) -> MsiError {
        let base = self.gic.redistributor_frames(cpu).map_or(0, Redistributor::address);
        MsiError::Controller(ControllerFault {
            kind: "direct-lpi",
            base,
            operation,
            device: None,
            event: None,
            reason,
        })
    }

    /// Returns a CPU's doorbell (the physical address of its `GICR_SETLPIR`), or `None` if the CPU
    /// has no redistributor.
    pub(super) fn doorbell(&self, cpu: Cpu) -> Option<u64> {
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        Some(redistributor.address() + u64::from(gicr::SETLPIR.offset()))
    }

    /// Returns all doorbells.
    pub(super) fn doorbells(&self) -> impl Iterator<Item = u64> {
        self.gic.cpus().filter_map(|cpu| self.doorbell(cpu))
    }

    /// Returns the message that makes an LPI pending at a CPU.
    pub(super) fn message(&self, cpu: Cpu, lpi: Lpi) -> Result<MsiMessage, MsiError> {
        let address =
            self.doorbell(cpu).ok_or(MsiError::NotReachable(cpu, "it has no redistributor"))?;
        Ok(MsiMessage { address, data: lpi.get() })
    }

    pub(super) fn takes_lpis(&self, cpu: Cpu) -> bool {
        self.gic.is_on(cpu)
            && self.gic.redistributor_frames(cpu).is_ok_and(Redistributor::lpis_enabled)
    }

    /// Invalidates the cached configuration of these LPIs at their redistributors. A failure at one
    /// redistributor does not prevent the invalidation at the others; the first failure is
    /// returned.
    ///
    /// Context: any.
    pub(super) fn invalidate(
        &self,
        cpus: impl Iterator<Item = Cpu>,
        block: LpiBlock,
    ) -> Result<(), MsiError> {
        cpus.map(|cpu| self.invalidate_at(cpu, block)).fold(Ok(()), Result::and)
    }

    /// Invalidates the cached configuration of these LPIs at one redistributor. A sleeping
    /// redistributor is skipped, because its cached configurations are invalidated when it wakes.
    ///
    /// Context: any.
    pub(super) fn invalidate_at(&self, cpu: Cpu, block: LpiBlock) -> Result<(), MsiError> {
        if block.count.get() >= BULK {
            self.run_at(cpu, core::iter::once(Invalidation::All))
        } else {
            self.run_at(cpu, block.lpis().map(Invalidation::One))
        }
    }

    /// Invalidates all configurations that one redistributor has cached.
    ///
    /// Context: any.
    pub(super) fn invalidate_all_at(&self, cpu: Cpu) -> Result<(), MsiError> {
        self.run_at(cpu, core::iter::once(Invalidation::All))
    }

    /// Clears the pending state of an LPI at one redistributor. Returns `false` if the
    /// redistributor is asleep.
    pub(super) fn clear_at(&self, cpu: Cpu, lpi: Lpi) -> bool {
        let clear = |redistributor: &Redistributor<P::Mmio>| {
            redistributor.mmio().write(gicr::CLRLPIR, lpi.get().into());
        };
        self.at(cpu, clear).is_some()
    }

    fn run_at(&self, cpu: Cpu, wanted: impl Iterator<Item = Invalidation>) -> Result<(), MsiError> {
        let done = self.at(cpu, |redistributor| redistributor.invalidate(self.platform(), wanted));
        match done {
            Some(Err(late)) => Err(self.fault_at(cpu, "invalidate", late.0)),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// Reason why direct LPIs can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectLpiError {
    /// The GIC has no usable LPIs.
    #[error(transparent)]
    Lpi(#[from] LpiError),
    /// A redistributor lacks `GICR_SETLPIR` and the related registers (`GICR_TYPER.DirectLPI` = 0):
    /// firmware describes Direct LPIs on hardware that does not support them.
    #[error(
        "redistributor@{address:x}: firmware describes Direct LPIs, but the hardware does not \
         support them (GICR_TYPER.DirectLPI is 0)"
    )]
    NotDirect {
        /// Physical address of RD_base.
        address: u64,
    },
    /// No CPU has a redistributor.
    #[error("no CPU has a redistributor")]
    NoRedistributors,
    /// Memory for the LPI and CPU records could not be allocated.
    #[error("out of memory for the records of direct LPIs")]
    NoMemory,
    /// A redistributor failed.
    #[error(transparent)]
    Fault(MsiError),
}
