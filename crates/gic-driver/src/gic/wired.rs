//! Wired interrupts, addressed by INTID: SPIs and extended SPIs at the distributor; SGIs, PPIs and
//! extended PPIs at the calling CPU's redistributor.

use super::Gic;
use crate::claims::{Moving, PRIVATE, nth};
use crate::{GicError, GicPlatform, Interrupt, Route};
use core::num::NonZeroU16;
use core::sync::atomic::Ordering;
use gic_arch::{Affinity, IntId, IntIdClass};
use msi_types::explain::Explanation;
use msi_types::{ControllerFault, Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};

/// Private interrupts are SGIs, PPIs and extended PPIs. An operation on a private interrupt affects
/// the calling CPU's instance: each CPU masks and unmasks its own instance and sets its trigger. A
/// claim on a private interrupt covers all CPUs. A private interrupt cannot be moved to another
/// CPU.
impl<P: GicPlatform> WiredParent for Gic<P> {
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            self.wired(nth(first, offset)?.hwirq())?;
        }
        self.claims.with(&*self.platform, |claims| claims.claim_all(first, count))?;
        self.prepare(first, count).inspect_err(|_| self.disclaim(first, count))
    }

    fn release(&self, first: HwIrq, count: NonZeroU16) {
        for offset in 0..count.get() {
            if let Ok(intid) = nth(first, offset)
                && let Ok(interrupt) = self.wired(intid.hwirq())
            {
                // Ignore a timeout: the disable has been requested, and the caller is releasing the
                // interrupt.
                let _ = interrupt.disable(&*self.platform);
                interrupt.set_pending(Pending::Clear);
            }
        }
        self.disclaim(first, count);
    }

    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError> {
        let interrupt = self.wired(hwirq)?;
        interrupt
            .set_trigger(&*self.platform, trigger)
            .map_err(|error| self.fault("set trigger", error))
    }

    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError> {
        if IntId::from(hwirq).is_private() {
            return Err(MsiError::NotReachable(cpu, PRIVATE));
        }
        let affinity =
            self.affinity(cpu).ok_or(MsiError::NotReachable(cpu, "the GIC does not know it"))?;
        if !self.is_on(cpu) {
            return Err(MsiError::NotReachable(cpu, "it is off"));
        }
        self.reroute(&self.wired(hwirq)?, cpu, affinity)
    }

    fn mask(&self, hwirq: HwIrq) {
        if let Ok(interrupt) = self.wired(hwirq) {
            self.moves.with(&*self.platform, |moves| {
                // An interrupt that is being moved is already disabled. Record the request so that
                // the interrupt stays disabled when the move ends.
                let _ = moves.note(interrupt.intid(), false);
                interrupt.request_disable();
            });
            // Ignore a timeout, because `mask` can't return an error and the disable has been
            // requested.
            let _ = interrupt.wait_for_rwp(&*self.platform);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if let Ok(interrupt) = self.wired(hwirq) {
            self.moves.with(&*self.platform, |moves| {
                if moves.note(interrupt.intid(), true).is_ok() {
                    interrupt.enable();
                }
            });
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        if let Ok(interrupt) = self.wired(hwirq) {
            let intid = IntId::from(hwirq);
            if pending == Pending::Clear && !intid.is_private() {
                self.distributor.clear_message(intid);
            }
            interrupt.set_pending(pending);
        }
    }

    fn is_pending(&self, hwirq: HwIrq) -> bool {
        self.wired(hwirq).is_ok_and(|interrupt| interrupt.is_pending())
    }

    fn has_private(&self, hwirq: HwIrq) -> bool {
        IntId::from(hwirq).is_private() && self.wired(hwirq).is_ok()
    }

    fn explain(&self, hwirq: HwIrq) -> Explanation {
        self.explain_wired(hwirq)
    }
}

impl<P: GicPlatform> Gic<P> {
    /// Returns a handle to an SPI or extended SPI, or to a private interrupt of the calling CPU.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if the interrupt is not implemented; [`GicError::UnknownCpu`]
    /// or [`GicError::NoRedistributor`] if the interrupt is private and the caller's CPU has no
    /// redistributor.
    pub fn interrupt(&self, intid: IntId) -> Result<Interrupt<'_, P::Mmio>, GicError> {
        if intid.is_private() {
            self.redistributor_frames(self.platform.cpu())?.interrupt(intid)
        } else {
            self.distributor.interrupt(intid)
        }
    }

    /// Returns a handle to an interrupt in the block that holds its state: the distributor, or the
    /// calling CPU's redistributor.
    pub(super) fn wired(&self, hwirq: HwIrq) -> Result<Interrupt<'_, P::Mmio>, MsiError> {
        let intid = IntId::from(hwirq);
        // A CPU interface without `ICC_CTLR_EL1.ExtRange` must never see an extended INTID (IHI
        // 0069 §12.2).
        let extended = matches!(intid.class(), IntIdClass::ExtendedPpi | IntIdClass::ExtendedSpi);
        if extended && self.without_extended.load(Ordering::SeqCst) {
            return Err(MsiError::UnknownVector(hwirq));
        }
        self.interrupt(intid).map_err(|_| MsiError::UnknownVector(hwirq))
    }

    /// Changes the route of a shared interrupt. On return, the old CPU no longer receives the
    /// interrupt.
    ///
    /// `GICD_CTLR.RWP` tracks a disable, but not a write of `GICD_IROUTER` (IHI 0069 §12.9.4). An
    /// interrupt that is enabled while its route changes may still be forwarded along the old
    /// route. The driver therefore disables the interrupt during the change, as Linux does.
    fn reroute(
        &self,
        interrupt: &Interrupt<'_, P::Mmio>,
        cpu: Cpu,
        affinity: Affinity,
    ) -> Result<(), MsiError> {
        let intid = interrupt.intid();
        let begun = self.moves.with(&*self.platform, |moves| {
            let enabled = interrupt.is_enabled();
            moves.begin(intid, enabled)?;
            if enabled {
                interrupt.request_disable();
            }
            Ok(())
        });
        begun.map_err(|Moving| {
            MsiError::NotReachable(cpu, "the interrupt is already being moved")
        })?;
        let result = interrupt
            .wait_for_rwp(&*self.platform)
            .map_err(|error| self.fault("set target", error))
            .and_then(|()| self.write_route(intid, cpu, affinity));
        self.moves.with(&*self.platform, |moves| {
            if moves.end(intid) {
                interrupt.enable();
            }
        });
        result
    }

    /// Writes the route. The interrupt must be disabled, and the disable must have taken effect. If
    /// the route does not read back, the distributor can't reach the requested affinity, and the
    /// old route is restored.
    fn write_route(&self, intid: IntId, cpu: Cpu, affinity: Affinity) -> Result<(), MsiError> {
        let write = |route| {
            let written = self.distributor.set_route(intid, route);
            written.and_then(|()| self.distributor.route(intid))
        };
        let unknown = |_| MsiError::UnknownVector(intid.hwirq());
        let old = self.distributor.route(intid).map_err(unknown)?;
        if write(Route::To(affinity)).map_err(unknown)? != Route::To(affinity) {
            write(old).map_err(unknown)?;
            return Err(MsiError::NotReachable(cpu, "the distributor does not accept this route"));
        }
        Ok(())
    }

    /// Sets the priority of each shared interrupt and checks that this security view can configure
    /// it. Private interrupts were already set up when their CPU was turned on.
    fn prepare(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            let intid = nth(first, offset)?;
            if intid.is_private() {
                continue;
            }
            let taken = self.wired(intid.hwirq())?.take(self.priorities.wired);
            taken.map_err(|_| MsiError::UnknownVector(intid.hwirq()))?;
        }
        Ok(())
    }

    fn disclaim(&self, first: HwIrq, count: NonZeroU16) {
        self.claims.with(&*self.platform, |claims| claims.release_all(first, count.get()));
    }

    fn fault(&self, operation: &'static str, error: GicError) -> MsiError {
        let reason = match error {
            GicError::TimedOut { what, .. } => what,
            GicError::StillEnabled(_) => "the interrupt is enabled",
            GicError::FixedTrigger(intid) if intid.is_private() => PRIVATE,
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
