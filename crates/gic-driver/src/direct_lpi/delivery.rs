//! Makes LPIs pending by `GICR_SETLPIR`, with a report of each to the observer.

use super::records::{Deferred, Record};
use super::{DirectLpi, Resend, ResendReason};
use crate::GicPlatform;
use gic_arch::Lpi;
use msi_types::Cpu;

impl<P: GicPlatform> DirectLpi<P> {
    /// Makes an LPI pending at its target, now or once that is on.
    pub(super) fn deliver(&self, lpi: Lpi, record: &mut Record, reason: ResendReason) {
        // Two that are deferred are one: if one of them is known to be due, its handler runs for
        // that.
        let reason = match record.deferred {
            Deferred::SetPending(before) => reason.min(before),
            Deferred::Nothing | Deferred::Free(_) => reason,
        };
        let resend = Resend { hwirq: lpi.intid().hwirq(), cpu: record.target, reason };
        let done = self.at(record.target, |registers| {
            self.observer.iter().for_each(|observer| observer.resending(resend));
            registers.set(lpi);
            self.observer.iter().for_each(|observer| observer.resent(resend));
        });
        record.deferred =
            if done.is_some() { Deferred::Nothing } else { Deferred::SetPending(reason) };
    }

    /// Makes an LPI pending at its target that may be pending at CPUs which it left, and clears it
    /// there, in this order.
    pub(super) fn resend_from(
        &self,
        left: impl Iterator<Item = Cpu>,
        lpi: Lpi,
        record: &mut Record,
    ) {
        self.deliver(lpi, record, ResendReason::Unknowable);
        for cpu in left {
            if !self.clear_at(cpu, lpi) {
                record.stale = record.stale.with(cpu);
            }
            record.previous.remove(cpu);
        }
    }
}
