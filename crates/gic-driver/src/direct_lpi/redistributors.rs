//! The redistributors as Direct LPIs use them: their registers (IHI 0069 §12.11: `GICR_SETLPIR`,
//! `GICR_CLRLPIR`), and invalidations. Registers of a redistributor that sleeps are not used.

use super::error::DirectLpiError;
use super::records::LpiBlock;
use crate::gic::GicWithLpis;
use crate::redistributor::Invalidation;
use crate::register_access::RegisterAccess;
use crate::{GicPlatform, Mmio, MmioExt, Redistributor};
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::{Lpi, gicr};
use msi_types::{ControllerFault, Cpu, MsiError, MsiMessage};

/// From so many LPIs on, one invalidation covers all instead of one each.
const BULK: u16 = 16;

/// The redistributors, and the permissions to use their registers.
pub(super) struct DirectRedistributors<P: GicPlatform> {
    gic: GicWithLpis<P>,
    /// By CPU.
    access: Vec<RegisterAccess>,
}

impl<P: GicPlatform> DirectRedistributors<P> {
    /// Takes the redistributors of a GIC, all of which must have Direct LPIs.
    pub(super) fn new(gic: GicWithLpis<P>) -> Result<Self, DirectLpiError> {
        let mut found = 0;
        for redistributor in gic.cpus().filter_map(|cpu| gic.redistributor_frames(cpu).ok()) {
            if DirectLpiRegisters::of(redistributor).is_none() {
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

    /// Uses a CPU's registers, unless its redistributor sleeps or is about to.
    pub(super) fn at<R>(
        &self,
        cpu: Cpu,
        f: impl FnOnce(DirectLpiRegisters<'_, P::Mmio>) -> R,
    ) -> Option<R> {
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        let registers = DirectLpiRegisters::of(redistributor)?;
        let _guard = self.access(cpu)?.enter()?;
        Some(f(registers))
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
            Err(MsiError::NotReachable(cpu, "its LPIs are off"))
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

    /// The doorbell of a CPU: the physical address of its `GICR_SETLPIR`. `None` for a CPU without
    /// redistributor.
    pub(super) fn doorbell(&self, cpu: Cpu) -> Option<u64> {
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        Some(DirectLpiRegisters::of(redistributor)?.doorbell())
    }

    /// All doorbells, to be mapped into an IOMMU's domain.
    pub(super) fn doorbells(&self) -> impl Iterator<Item = u64> {
        self.gic.cpus().filter_map(|cpu| self.doorbell(cpu))
    }

    /// The message that makes an LPI pending at a CPU.
    pub(super) fn message(&self, cpu: Cpu, lpi: Lpi) -> Result<MsiMessage, MsiError> {
        let address =
            self.doorbell(cpu).ok_or(MsiError::NotReachable(cpu, "it has no redistributor"))?;
        Ok(MsiMessage { address, data: lpi.get() })
    }

    pub(super) fn takes_lpis(&self, cpu: Cpu) -> bool {
        self.gic.is_on(cpu)
            && self.gic.redistributor_frames(cpu).is_ok_and(Redistributor::lpis_enabled)
    }

    /// Invalidates the cached configuration of these LPIs at their redistributors. Continues after
    /// a failure, and reports the first one.
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
    /// redistributor is skipped, because all its configurations are invalidated once it is awake.
    ///
    /// Context: any.
    pub(super) fn invalidate_at(&self, cpu: Cpu, block: LpiBlock) -> Result<(), MsiError> {
        if block.count.get() >= BULK {
            self.run_at(cpu, core::iter::once(Invalidation::All))
        } else {
            self.run_at(cpu, block.lpis().map(Invalidation::One))
        }
    }

    /// Invalidates all configurations cached by one redistributor.
    ///
    /// Context: any.
    pub(super) fn invalidate_all_at(&self, cpu: Cpu) -> Result<(), MsiError> {
        self.run_at(cpu, core::iter::once(Invalidation::All))
    }

    /// Makes an LPI not pending at one redistributor; `false` if that sleeps.
    pub(super) fn clear_at(&self, cpu: Cpu, lpi: Lpi) -> bool {
        self.at(cpu, |registers| registers.clear(lpi)).is_some()
    }

    fn run_at(&self, cpu: Cpu, wanted: impl Iterator<Item = Invalidation>) -> Result<(), MsiError> {
        let done =
            self.at(cpu, |registers| registers.redistributor().invalidate(self.platform(), wanted));
        match done {
            Some(Err(late)) => Err(self.fault_at(cpu, "invalidate", late.0)),
            Some(Ok(())) | None => Ok(()),
        }
    }
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
