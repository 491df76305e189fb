//! Handing LPIs out and taking them back.

use super::DirectLpi;
use super::holders::Holders;
use super::invalidation::Span;
use super::records::{Drain, Owed, Record};
use crate::lpi::LpiRange;
use crate::{Alignment, Platform};
use core::num::{NonZeroU16, NonZeroU32};
use core::ops::Range;
use gic_arch::{IntId, Lpi};
use msi_types::{BlockRequest, Cpu, Fit, Initially, MsiError, MsiMessage, Shape, VectorBlock};

/// INTIDs that PCI MSI's 16 data bits can hold. They are kept for those who need them as long as there are others.
const SHORT: u32 = 1 << 16;

impl<P: Platform> DirectLpi<P> {
    /// [`MsiParent::allocate`](msi_types::MsiParent::allocate). Task.
    pub(super) fn hand_out(&self, request: &BlockRequest) -> Result<VectorBlock, MsiError> {
        let BlockRequest { count, shape, fit, cpu, initially } = *request;
        self.check_accepts(cpu)?;
        fit.check(self.message(cpu, Lpi::FIRST)?)?;
        let (first, _) = self.take(count, shape, fit)?.into_parts();
        let span = Span { first, count };
        let last = self.remember(span, request);
        if initially == Initially::Unmasked {
            span.lpis().for_each(|lpi| self.enable(lpi));
        }
        // Placed before it is looked again: a CPU that leaves now sees these LPIs. Its redistributor, and whatever a
        // previous owner moved away from, may remember other configurations.
        let ready = self.check_accepts(cpu).and_then(|()| self.invalidate(last.with(cpu), span));
        match ready {
            Ok(()) => Ok(VectorBlock::new(first.intid().vector(), count)),
            Err(error) => {
                self.give_back(span);
                Err(error)
            }
        }
    }

    /// [`MsiParent::free`](msi_types::MsiParent::free). Task.
    pub(super) fn take_back(&self, block: &VectorBlock) {
        let Ok(first) = Lpi::try_from(block.first().get()) else {
            return self.note(MsiError::UnknownVector(block.first()));
        };
        let owned = |record: Record| record.owed != Owed::Retirement;
        if !self.records.get(self.platform(), first).is_some_and(owned) {
            return self.note(MsiError::UnknownVector(block.first()));
        }
        self.give_back(Span { first, count: block.count() });
    }

    /// The message that makes an LPI pending at a CPU.
    pub(super) fn message(&self, cpu: Cpu, lpi: Lpi) -> Result<MsiMessage, MsiError> {
        let address = self.doorbell(cpu).ok_or(MsiError::NotReachable(cpu, "it has no redistributor"))?;
        Ok(MsiMessage { address, data: lpi.get() })
    }

    /// LPIs that the endpoint's data can name, the others first if it can name all.
    fn take(&self, count: NonZeroU16, shape: Shape, fit: Fit) -> Result<LpiRange, MsiError> {
        let no_vectors = MsiError::NoVectors { wanted: count.get() };
        let align = match shape {
            Shape::Independent => Alignment::ONE,
            Shape::AlignedGroup => Alignment::of_group(count.into()).ok_or(no_vectors)?,
        };
        let from = |intids: Range<u32>| self.lpis.allocate_within(count.into(), align, intids);
        if fit.data_bits >= 32 {
            return from(SHORT..u32::MAX)
                .or_else(|_| from(0..SHORT))
                .or_else(|_| from(0..u32::MAX))
                .map_err(|_| no_vectors);
        }
        let end = 1 << fit.data_bits;
        from(0..end).map_err(|_| {
            let too_wide = !self.lpis.has_free_within(0..end) && self.lpis.available() > 0;
            let data = end.max(IntId::LPI_BASE);
            if too_wide { MsiError::DataTooWide { data, bits: fit.data_bits } } else { no_vectors }
        })
    }

    /// Makes the LPIs the new owner's, with nothing pending: the last owner's device may have sent a message after
    /// it was told not to. Answers where it went.
    fn remember(&self, span: Span, request: &BlockRequest) -> Holders {
        let mut everywhere = Holders::NONE;
        for lpi in span.lpis() {
            let (first, count) = match request.shape {
                Shape::Independent => (lpi, NonZeroU16::MIN),
                Shape::AlignedGroup => (span.first, span.count),
            };
            let record = Record {
                target: request.cpu,
                moving: None,
                holders: Holders::only(request.cpu),
                first,
                count,
                fit: request.fit,
                owed: Owed::Nothing,
                drain: Drain::No,
                stale: Holders::NONE,
            };
            let last = self.records.insert(self.platform(), lpi, record);
            let stale = self.clear_at(last, lpi);
            if !stale.is_empty() {
                self.records.update(self.platform(), lpi, |record| record.stale = stale);
            }
            everywhere = everywhere.or(last);
        }
        everywhere
    }

    fn enable(&self, lpi: Lpi) {
        if self.lpis.enable(lpi).is_err() {
            self.note(MsiError::UnknownVector(lpi.intid().vector()));
        }
    }

    /// Disabled and not pending anywhere, then free. LPIs whose redistributor does not answer stay taken for ever,
    /// those of one that sleeps until it is awake: whoever got them next might hear from the last owner's device.
    fn give_back(&self, span: Span) {
        for lpi in span.lpis() {
            let retire = |record: &mut Record| {
                record.owed = Owed::Retirement;
                record.holders
            };
            // Marked before it is cleared: a redistributor that is passed over now clears it when it wakes.
            let Some(holders) = self.records.update(self.platform(), lpi, retire) else { continue };
            if self.lpis.disable(lpi).is_err() {
                self.note(MsiError::UnknownVector(lpi.intid().vector()));
            }
            let cleared = self.invalidate(holders, Span::one(lpi)).and_then(|()| {
                let missed = self.clear_at(holders, lpi);
                // Early revisions of the architecture have SYNCR cover what was cleared, too.
                self.invalidate(holders, Span::one(lpi)).map(|()| missed)
            });
            match cleared {
                Ok(missed) => self.retire(lpi, |holders| holders.and(missed)),
                Err(error) => {
                    self.records.remove(self.platform(), lpi);
                    self.note(error);
                }
            }
        }
    }

    /// Frees an LPI if no holder is `left` that it has to be cleared at.
    pub(super) fn retire(&self, lpi: Lpi, left: impl FnOnce(Holders) -> Holders) {
        let done = self.records.update(self.platform(), lpi, |record| {
            record.holders = left(record.holders);
            record.holders.is_empty()
        });
        // Whoever takes the record out frees the LPI.
        if done == Some(true)
            && self.records.remove(self.platform(), lpi).is_some()
            && self.lpis.free(LpiRange::from_parts(lpi, NonZeroU32::MIN)).is_err()
        {
            self.note(MsiError::UnknownVector(lpi.intid().vector()));
        }
    }
}
