//! Wired interrupts of a GICv2.

use super::GicV2;
use crate::claims::nth;
use crate::{Interrupt, Mmio, MmioExt, Platform};
use core::num::NonZeroU16;
use gic_arch::{IntId, gicd};
use msi_types::{ControllerFault, Cpu, MsiError, Pending, Trigger, Vector, WiredParent};

/// For SGIs and PPIs, what acts on the interrupt acts on the calling CPU's. One claim covers all
/// CPUs. They do not move.
impl<P: Platform> WiredParent for GicV2<P> {
    fn claim(&self, first: Vector, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            self.wired(nth(first, offset)?.vector())?;
        }
        self.claims.with(&*self.platform, |claims| claims.claim_all(first, count))?;
        self.prepare(first, count).inspect_err(|_| self.disclaim(first, count))
    }

    fn release(&self, first: Vector, count: NonZeroU16) {
        for offset in 0..count.get() {
            if let Ok(intid) = nth(first, offset) {
                self.mask(intid.vector());
                self.set_pending(intid.vector(), Pending::Clear);
            }
        }
        self.disclaim(first, count);
    }

    fn set_trigger(&self, vector: Vector, trigger: Trigger) -> Result<(), MsiError> {
        let fault = ControllerFault {
            kind: "gicv2",
            base: self.config.distributor,
            operation: "set trigger",
            device: None,
            event: None,
            reason: "it is enabled, or the hardware fixes it",
        };
        let interrupt = self.wired(vector)?;
        interrupt.set_trigger(&*self.platform, trigger).map_err(|_| MsiError::Controller(fault))
    }

    fn set_target(&self, vector: Vector, cpu: Cpu) -> Result<(), MsiError> {
        if IntId::from(vector).is_private() {
            return Err(MsiError::NotReachable(cpu, "a private interrupt is each CPU's own"));
        }
        self.wired(vector)?;
        let target = self.target_of(cpu).ok_or(MsiError::NotReachable(cpu, "it is off"))?;
        let place = gicd::ITARGETSR.locate(vector.into()).ok_or(MsiError::UnknownVector(vector))?;
        // IHI 0048 §4.3.12: it may be written at any time, and a pending interrupt moves to the new
        // target.
        self.frame.mmio.write8(place.byte_offset(), target.get());
        // The read returns after the write reached the distributor.
        let kept = place.extract(self.frame.mmio.read(place.register()));
        // With a single CPU there is nothing to choose: RAZ/WI.
        if kept != u32::from(target.get()) && self.typer.cpu_number() != 0 {
            return Err(MsiError::NotReachable(cpu, "the distributor does not keep this target"));
        }
        Ok(())
    }

    fn mask(&self, vector: Vector) {
        if let Ok(interrupt) = self.wired(vector) {
            // There is nothing to wait for.
            let _ = interrupt.disable(&*self.platform);
        }
    }

    fn unmask(&self, vector: Vector) {
        if let Ok(interrupt) = self.wired(vector) {
            interrupt.enable();
        }
    }

    fn set_pending(&self, vector: Vector, pending: Pending) {
        if let Ok(interrupt) = self.wired(vector) {
            interrupt.set_pending(pending);
        }
    }

    fn is_pending(&self, vector: Vector) -> bool {
        self.wired(vector).is_ok_and(|interrupt| interrupt.is_pending())
    }
}

impl<P: Platform> GicV2<P> {
    fn wired(&self, vector: Vector) -> Result<Interrupt<'_, P::Mmio>, MsiError> {
        self.interrupt(vector.into()).map_err(|_| MsiError::UnknownVector(vector))
    }

    /// Checks that this security view has a say over each SPI.
    fn prepare(&self, first: Vector, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            let vector = nth(first, offset)?.vector();
            if !IntId::from(vector).is_private() {
                let taken = self.wired(vector)?.take(self.config.priority);
                taken.map_err(|_| MsiError::UnknownVector(vector))?;
            }
        }
        Ok(())
    }

    fn disclaim(&self, first: Vector, count: NonZeroU16) {
        self.claims.with(&*self.platform, |claims| claims.release_all(first, count.get()));
    }
}
