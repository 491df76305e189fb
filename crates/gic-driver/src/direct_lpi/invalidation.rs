//! Making redistributors read configuration bytes anew, and setting and clearing what is pending.

use super::holders::Holders;
use super::records::{Drain, Owed, Record};
use super::{DirectLpi, ResendReason};
use crate::Platform;
use core::num::NonZeroU16;
use gic_arch::Lpi;
use msi_types::{Cpu, MsiError, Pending, Vector};

/// From so many LPIs on, a redistributor forgets all at once instead of one by one.
const BULK: u16 = 16;

/// Consecutive LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) first: Lpi,
    pub(super) count: NonZeroU16,
}

impl Span {
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

impl<P: Platform> DirectLpi<P> {
    /// Makes one redistributor read the configuration of these LPIs anew. One that sleeps reads all anew once it is
    /// awake. Any.
    pub(super) fn invalidate_at(&self, cpu: Cpu, span: Span) -> Result<(), MsiError> {
        let done = self.at(cpu, |registers| {
            if span.count.get() >= BULK {
                registers.invalidate_all();
            } else {
                span.lpis().for_each(|lpi| registers.invalidate(lpi));
            }
            registers.sync(self.platform())
        });
        match done {
            Some(Err(late)) => Err(self.fault_at(cpu, "INVLPIR", late.0)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The same at each holder. Goes on after a failure, and reports the first one. Any.
    pub(super) fn invalidate(&self, holders: Holders, span: Span) -> Result<(), MsiError> {
        let at = self.gic.cpus().filter(|cpu| holders.contains(*cpu));
        at.map(|cpu| self.invalidate_at(cpu, span)).fold(Ok(()), Result::and)
    }

    /// Makes one redistributor read all configurations anew. Any.
    pub(super) fn invalidate_all_at(&self, cpu: Cpu) -> Result<(), MsiError> {
        let done = self.at(cpu, |registers| {
            registers.invalidate_all();
            registers.sync(self.platform())
        });
        match done {
            Some(Err(late)) => Err(self.fault_at(cpu, "INVALLR", late.0)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Stores the configuration, then makes every holder read it. In this order, and the holders read after the store:
    /// a move that adds a holder later invalidates there itself.
    pub(super) fn configure(&self, vector: Vector, forwarding: Forwarding) -> Result<(), MsiError> {
        let unknown = MsiError::UnknownVector(vector);
        let lpi = Lpi::try_from(vector.get()).map_err(|_| unknown)?;
        // A drain can say nothing about an LPI that is disabled meanwhile, or was until now.
        self.records.update(self.platform(), lpi, |record| record.drain = Drain::No).ok_or(unknown)?;
        let stored = match forwarding {
            Forwarding::On => self.lpis.enable(lpi),
            Forwarding::Off => self.lpis.disable(lpi),
        };
        stored.map_err(|_| unknown)?;
        let record = self.records.get(self.platform(), lpi).ok_or(unknown)?;
        self.invalidate(record.holders, Span::one(lpi))
    }

    /// Makes an LPI pending at its target, or not pending anywhere. Any.
    pub(super) fn change_pending(&self, vector: Vector, pending: Pending) {
        let Ok(lpi) = Lpi::try_from(vector.get()) else { return };
        // Under the record's lock: the target does not change before the register is written.
        self.records.update(self.platform(), lpi, |record| match pending {
            // It was taken back: what it owes is to be cleared.
            _ if record.owed == Owed::Retirement => {}
            Pending::Set => self.deliver(lpi, record, ResendReason::Requested),
            Pending::Clear => {
                record.owed = Owed::Nothing;
                self.clear_at(record.holders, lpi);
            }
        });
    }

    /// Makes an LPI not pending at any of the holders that are awake. Answers those that are not.
    pub(super) fn clear_at(&self, holders: Holders, lpi: Lpi) -> Holders {
        let at = self.gic.cpus().filter(|cpu| holders.contains(*cpu));
        let asleep = at.filter(|cpu| self.at(*cpu, |registers| registers.clear(lpi)).is_none());
        asleep.fold(Holders::NONE, Holders::with)
    }
}

/// What an LPI's configuration is to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forwarding {
    On,
    Off,
}
