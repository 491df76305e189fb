//! Making redistributors read configuration bytes anew, and setting and clearing what is pending.

use super::records::{Deferred, Record};
use super::{DirectLpi, ResendReason};
use crate::GicPlatform;
use crate::lpi::LpiError;
use crate::redistributor::Invalidation;
use core::num::NonZeroU16;
use gic_arch::{Lpi, Priority};
use msi_types::{Cpu, HwIrq, MsiError, Pending};

/// From so many LPIs on, one invalidation covers all instead of one each.
const BULK: u16 = 16;

/// Consecutive LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LpiBlock {
    pub(super) first: Lpi,
    pub(super) count: NonZeroU16,
}

impl LpiBlock {
    pub(super) const fn one(lpi: Lpi) -> Self {
        Self { first: lpi, count: NonZeroU16::MIN }
    }

    pub(super) const fn of(record: &Record) -> Self {
        Self { first: record.first, count: record.count }
    }

    pub(super) fn lpis(self) -> impl Iterator<Item = Lpi> + Clone + use<> {
        let first = self.first.index();
        (0..u32::from(self.count.get()))
            .filter_map(move |index| first.checked_add(index).and_then(Lpi::from_index))
    }
}

impl<P: GicPlatform> DirectLpi<P> {
    /// [`MsiParent::mask`](msi_types::MsiParent::mask).
    ///
    /// Context: any.
    pub(super) fn disable(&self, hwirq: HwIrq) -> Result<(), MsiError> {
        self.configure(hwirq, |lpi| self.gic.lpis().disable(lpi))
    }

    /// [`MsiParent::unmask`](msi_types::MsiParent::unmask).
    ///
    /// Context: any.
    pub(super) fn enable(&self, hwirq: HwIrq) -> Result<(), MsiError> {
        self.configure(hwirq, |lpi| self.gic.lpis().enable(lpi))
    }

    /// Changes a vector's priority, of which the two low bits are dropped. On return the priority
    /// is in effect at the vector's target.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`MsiError::UnknownVector`]; [`MsiError::Controller`] if a redistributor does not answer.
    pub fn set_priority(&self, hwirq: HwIrq, priority: Priority) -> Result<(), MsiError> {
        self.configure(hwirq, |lpi| self.gic.lpis().set_priority(lpi, priority))
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

    /// Makes an LPI pending at its target, or clears its pending state at every CPU.
    ///
    /// Context: any.
    pub(super) fn change_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Ok(lpi) = Lpi::try_from(hwirq.get()) else { return };
        // Under the record's lock: the target does not change before the register is written.
        self.records.update(self.platform(), lpi, |record| match pending {
            _ if record.is_freed() => {}
            Pending::Set => self.deliver(lpi, record, ResendReason::Requested),
            Pending::Clear => {
                record.deferred = Deferred::Nothing;
                record.cached_at().iter().for_each(|cpu| _ = self.clear_at(cpu, lpi));
            }
        });
    }

    /// Makes an LPI not pending at one redistributor; `false` if that sleeps.
    pub(super) fn clear_at(&self, cpu: Cpu, lpi: Lpi) -> bool {
        self.at(cpu, |registers| registers.clear(lpi)).is_some()
    }

    /// Stores a configuration, then invalidates wherever the LPI may be pending. The record is read
    /// after the store: a move that starts later invalidates at its new redistributor itself.
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
        self.invalidate(record.cached_at().iter(), LpiBlock::one(lpi))
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
