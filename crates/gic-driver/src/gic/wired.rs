//! SPIs and extended SPIs as the seam of wired interrupts.

use super::Gic;
use crate::{GicError, Interrupt, Platform, Route};
use core::num::NonZeroU16;
use gic_arch::{IntId, IntIdClass};
use msi_types::{ControllerFault, Cpu, MsiError, Pending, Trigger, Vector, WiredParent};

/// One bit for each shared interrupt that has an owner.
#[derive(Debug, Default)]
pub(super) struct Claims {
    spis: [u64; 16],
    extended: [u64; 16],
}

impl Claims {
    /// Takes an interrupt; `false` if it has an owner, or is not a shared one.
    fn claim(&mut self, intid: IntId) -> bool {
        match self.bit(intid) {
            Some((word, mask)) if *word & mask == 0 => {
                *word |= mask;
                true
            }
            _ => false,
        }
    }

    fn release(&mut self, intid: IntId) {
        if let Some((word, mask)) = self.bit(intid) {
            *word &= !mask;
        }
    }

    fn bit(&mut self, intid: IntId) -> Option<(&mut u64, u64)> {
        let (words, index) = match intid.class() {
            IntIdClass::Spi => (&mut self.spis, intid.get()),
            IntIdClass::ExtendedSpi => (&mut self.extended, intid.get() - IntId::EXTENDED_SPI_BASE),
            _ => return None,
        };
        Some((words.get_mut(index as usize / 64)?, 1 << (index % 64)))
    }
}

impl<P: Platform> WiredParent for Gic<P> {
    fn claim(&self, first: Vector, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            let intid = nth(first, offset)?;
            self.distributor.interrupt(intid).map_err(|_| MsiError::UnknownVector(intid.vector()))?;
        }
        self.claims.with(&*self.platform, |claims| {
            for offset in 0..count.get() {
                let intid = nth(first, offset)?;
                if !claims.claim(intid) {
                    for taken in 0..offset {
                        claims.release(nth(first, taken)?);
                    }
                    return Err(MsiError::UnknownVector(intid.vector()));
                }
            }
            Ok(())
        })?;
        self.prepare(first, count).inspect_err(|_| self.disclaim(first, count))
    }

    fn release(&self, first: Vector, count: NonZeroU16) {
        for offset in 0..count.get() {
            if let Ok(intid) = nth(first, offset)
                && let Ok(interrupt) = self.distributor.interrupt(intid)
            {
                // A distributor that does not finish has the request: nothing more can be done for a caller that
                // gives up the interrupt.
                let _ = interrupt.disable(&*self.platform);
                interrupt.set_pending(Pending::Clear);
            }
        }
        self.disclaim(first, count);
    }

    fn set_trigger(&self, vector: Vector, trigger: Trigger) -> Result<(), MsiError> {
        let interrupt = self.shared(vector)?;
        interrupt.set_trigger(&*self.platform, trigger).map_err(|error| self.fault("set trigger", error))
    }

    fn set_target(&self, vector: Vector, cpu: Cpu) -> Result<(), MsiError> {
        let affinity = self.affinity(cpu).ok_or(MsiError::NotReachable(cpu, "the GIC does not know it"))?;
        if !self.is_on(cpu) {
            return Err(MsiError::NotReachable(cpu, "it is off"));
        }
        let route = Route::To(affinity);
        self.distributor.set_route(vector.into(), route).map_err(|_| MsiError::UnknownVector(vector))
    }

    fn mask(&self, vector: Vector) {
        if let Ok(interrupt) = self.shared(vector) {
            // There is nobody to tell; the request is made.
            let _ = interrupt.disable(&*self.platform);
        }
    }

    fn unmask(&self, vector: Vector) {
        if let Ok(interrupt) = self.shared(vector) {
            interrupt.enable();
        }
    }

    fn set_pending(&self, vector: Vector, pending: Pending) {
        if let Ok(interrupt) = self.shared(vector) {
            interrupt.set_pending(pending);
        }
    }

    fn is_pending(&self, vector: Vector) -> bool {
        self.shared(vector).is_ok_and(|interrupt| interrupt.is_pending())
    }
}

impl<P: Platform> Gic<P> {
    fn shared(&self, vector: Vector) -> Result<Interrupt<'_, P::Mmio>, MsiError> {
        self.distributor.interrupt(vector.into()).map_err(|_| MsiError::UnknownVector(vector))
    }

    /// Checks that this security view has a say over each.
    fn prepare(&self, first: Vector, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            let vector = nth(first, offset)?.vector();
            let taken = self.shared(vector)?.take(self.priorities.wired);
            taken.map_err(|_| MsiError::UnknownVector(vector))?;
        }
        Ok(())
    }

    fn disclaim(&self, first: Vector, count: NonZeroU16) {
        self.claims.with(&*self.platform, |claims| {
            for offset in 0..count.get() {
                if let Ok(intid) = nth(first, offset) {
                    claims.release(intid);
                }
            }
        });
    }

    fn fault(&self, operation: &'static str, error: GicError) -> MsiError {
        let reason = match error {
            GicError::TimedOut { what, .. } => what,
            GicError::StillEnabled(_) => "the interrupt is enabled",
            GicError::FixedTrigger(_) => "the hardware fixes the trigger",
            _ => "refused",
        };
        MsiError::Controller(ControllerFault {
            kind: "gicv3",
            base: self.distributor.address(),
            operation,
            device: None,
            event: None,
            reason,
        })
    }
}

fn nth(first: Vector, offset: u16) -> Result<IntId, MsiError> {
    first.checked_add(u32::from(offset)).map(IntId::from).ok_or(MsiError::UnknownVector(first))
}
