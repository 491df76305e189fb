//! LPI masking, priorities and pending state. Every resend of an LPI is reported to the
//! [`ResendObserver`](super::ResendObserver).

use super::records::{Deferred, LpiBlock, Record};
use super::{DirectLpi, Resend, ResendReason};
use crate::GicPlatform;
use crate::lpi::LpiError;
use gic_arch::{Lpi, Priority};
use msi_types::{Cpu, HwIrq, MsiError, Pending};

impl<P: GicPlatform> DirectLpi<P> {
    /// Implements [`MsiParent::mask`](msi_types::MsiParent::mask).
    ///
    /// Context: any.
    pub(super) fn disable(&self, hwirq: HwIrq) -> Result<(), MsiError> {
        self.configure(hwirq, |lpi| self.redistributors.gic().lpis().disable(lpi))
    }

    /// Implements [`MsiParent::unmask`](msi_types::MsiParent::unmask).
    ///
    /// Context: any.
    pub(super) fn enable(&self, hwirq: HwIrq) -> Result<(), MsiError> {
        self.configure(hwirq, |lpi| self.redistributors.gic().lpis().enable(lpi))
    }

    /// Changes a vector's priority; the two low bits are ignored. On return, the priority is in
    /// effect at the vector's target.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`MsiError::UnknownVector`] if the vector is not allocated; [`MsiError::Controller`] if a
    /// redistributor does not complete the invalidation.
    pub fn set_priority(&self, hwirq: HwIrq, priority: Priority) -> Result<(), MsiError> {
        self.configure(hwirq, |lpi| self.redistributors.gic().lpis().set_priority(lpi, priority))
    }

    /// Makes an LPI pending at its target, or clears its pending state at every CPU.
    ///
    /// Context: any.
    pub(super) fn change_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Ok(lpi) = Lpi::try_from(hwirq.get()) else { return };
        // The record's lock is held, so the target can't change before the register is written.
        self.records.update(self.platform(), lpi, |record| match pending {
            _ if record.is_freed() => {}
            Pending::Set => self.deliver(lpi, record, ResendReason::Requested),
            Pending::Clear => {
                record.deferred = Deferred::Nothing;
                record
                    .cached_at()
                    .iter()
                    .for_each(|cpu| _ = self.redistributors.clear_at(cpu, lpi));
            }
        });
    }

    /// Stores a configuration, then invalidates it at every redistributor at which the LPI may be
    /// pending. The record must be read after the store: a move that starts later performs its own
    /// invalidation at the new redistributor.
    fn configure(
        &self,
        hwirq: HwIrq,
        store: impl FnOnce(Lpi) -> Result<(), LpiError>,
    ) -> Result<(), MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let lpi = Lpi::try_from(hwirq.get()).map_err(|_| unknown)?;
        self.records.get(self.platform(), lpi).ok_or(unknown)?;
        store(lpi).map_err(|_| unknown)?;
        let record = self.records.get(self.platform(), lpi).ok_or(unknown)?;
        self.redistributors.invalidate(record.cached_at().iter(), LpiBlock::one(lpi))
    }

    /// Makes an LPI pending at its target, or defers the resend until the target is online.
    pub(super) fn deliver(&self, lpi: Lpi, record: &mut Record, reason: ResendReason) {
        // Merge two deferred resends into one and keep the reason that makes a spurious handler run
        // less likely.
        let reason = match record.deferred {
            Deferred::SetPending(before) => reason.min(before),
            Deferred::Nothing | Deferred::Free(_) => reason,
        };
        let resend = Resend { hwirq: lpi.intid().hwirq(), cpu: record.target, reason };
        let done = self.redistributors.at(record.target, |registers| {
            self.observer.iter().for_each(|observer| observer.resending(resend));
            registers.set(lpi);
            self.observer.iter().for_each(|observer| observer.resent(resend));
        });
        record.deferred =
            if done.is_some() { Deferred::Nothing } else { Deferred::SetPending(reason) };
    }

    /// Resends an LPI that may be pending at earlier targets, and then clears it there. The LPI
    /// can't be lost because it is resent first.
    pub(super) fn resend_from(
        &self,
        left: impl Iterator<Item = Cpu>,
        lpi: Lpi,
        record: &mut Record,
    ) {
        self.deliver(lpi, record, ResendReason::Unknowable);
        for cpu in left {
            if !self.redistributors.clear_at(cpu, lpi) {
                record.stale = record.stale.with(cpu);
            }
            record.previous.remove(cpu);
        }
    }
}
