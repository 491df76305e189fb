//! Allocates and frees LPIs.

use super::DirectLpi;
use super::records::{CpuSet, Deferred, LpiBlock, PreviousTargets, Record};
use crate::lpi::LpiRange;
use crate::{Alignment, GicPlatform};
use core::num::{NonZeroU16, NonZeroU32};
use core::ops::Range;
use gic_arch::{IntId, Lpi};
use msi_types::{BlockRequest, Cpu, Fit, HwIrqBlock, Initially, MsiError, Shape};

/// First INTID that does not fit in PCI MSI's 16 data bits. While higher INTIDs are free, lower
/// ones are reserved for endpoints that need them.
const SHORT: u32 = 1 << 16;

impl<P: GicPlatform> DirectLpi<P> {
    /// Implements [`MsiParent::allocate`](msi_types::MsiParent::allocate).
    ///
    /// Context: task; may sleep.
    pub(super) fn allocate_block(&self, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        let BlockRequest { count, shape, fit, cpu, initially, .. } = *request;
        self.redistributors.check_accepts(cpu)?;
        fit.check(self.redistributors.message(cpu, Lpi::FIRST)?)?;
        let (first, _) = self.allocate_lpis(count, shape, fit)?.into_parts();
        let block = LpiBlock { first, count };
        if self.records.reserve(block).is_err() {
            self.free(LpiRange::from_parts(first, count.into()));
            return Err(MsiError::NoMemory("the records of LPIs"));
        }
        let unowned = self.insert(block, request);
        if initially == Initially::Unmasked {
            block.lpis().for_each(|lpi| self.enable_unpublished(lpi));
        }
        // The records must be inserted before the CPU is checked again, so that a concurrent
        // `cpu_off` finds them. A redistributor that received a previous owner's messages may still
        // have old configurations of these LPIs cached.
        let caches = unowned.with(cpu);
        let caches = self.gic().cpus().filter(|cpu| caches.contains(*cpu));
        let ready = self
            .redistributors
            .check_accepts(cpu)
            .and_then(|()| self.redistributors.invalidate(caches, block));
        match ready {
            Ok(()) => Ok(HwIrqBlock::new(first.intid().hwirq(), count)),
            Err(error) => {
                self.free_lpis(block);
                Err(error)
            }
        }
    }

    /// Implements [`MsiParent::free`](msi_types::MsiParent::free).
    ///
    /// Context: task; may sleep.
    pub(super) fn free_block(&self, block: &HwIrqBlock) {
        let Ok(first) = Lpi::try_from(block.first().get()) else {
            return self.note(MsiError::UnknownVector(block.first()));
        };
        let owned = |record: Record| !record.is_freed();
        if !self.records.get(self.platform(), first).is_some_and(owned) {
            return self.note(MsiError::UnknownVector(block.first()));
        }
        self.free_lpis(LpiBlock { first, count: block.count() });
    }

    /// Allocates LPIs whose INTIDs fit in the endpoint's message data. If the data can hold any
    /// INTID, prefers INTIDs beyond 16 bits.
    fn allocate_lpis(
        &self,
        count: NonZeroU16,
        shape: Shape,
        fit: Fit,
    ) -> Result<LpiRange, MsiError> {
        let no_vectors = MsiError::NoVectors { wanted: count.get() };
        let align = Alignment::of(shape, count.into()).ok_or(no_vectors)?;
        let from = |intids: Range<u32>| self.lpis().allocate_within(count.into(), align, intids);
        if fit.data_bits >= 32 {
            return from(SHORT..u32::MAX)
                .or_else(|_| from(0..SHORT))
                .or_else(|_| from(0..u32::MAX))
                .map_err(|_| no_vectors);
        }
        let end = 1 << fit.data_bits;
        from(0..end).map_err(|_| {
            let too_wide = !self.lpis().has_free_within(0..end) && self.lpis().available() > 0;
            let data = end.max(IntId::LPI_BASE);
            if too_wide { MsiError::DataTooWide { data, bits: fit.data_bits } } else { no_vectors }
        })
    }

    /// Inserts the new owner's records and clears the LPIs, because an earlier owner's device may
    /// have sent messages after the LPI was freed. Returns the redistributors that such messages
    /// may have reached.
    fn insert(&self, block: LpiBlock, request: &BlockRequest) -> CpuSet {
        let mut everywhere = CpuSet::NONE;
        for lpi in block.lpis() {
            let (first, count) = match request.shape {
                Shape::Independent => (lpi, NonZeroU16::MIN),
                Shape::AlignedGroup => (block.first, block.count),
            };
            let record = Record {
                target: request.cpu,
                moving: None,
                previous: PreviousTargets::NONE,
                first,
                count,
                fit: request.fit,
                deferred: Deferred::Nothing,
                stale: CpuSet::NONE,
            };
            let unowned = self.records.insert(self.platform(), lpi, record);
            let missed = self
                .gic()
                .cpus()
                .filter(|cpu| unowned.contains(*cpu) && !self.redistributors.clear_at(*cpu, lpi));
            let stale = missed.fold(CpuSet::NONE, CpuSet::with);
            if unowned != CpuSet::NONE {
                self.records.update(self.platform(), lpi, |record| record.stale = stale);
            }
            everywhere = everywhere.or(unowned);
        }
        everywhere
    }

    /// Enables an LPI without invalidating its cached configuration, which the caller must
    /// invalidate afterwards.
    fn enable_unpublished(&self, lpi: Lpi) {
        if self.lpis().enable(lpi).is_err() {
            self.note(MsiError::UnknownVector(lpi.intid().hwirq()));
        }
    }

    /// Disables and clears the LPIs, then frees them. An LPI that must be cleared at a sleeping
    /// redistributor stays allocated until the redistributor wakes, and an LPI for which an
    /// invalidation never completes stays allocated permanently. Otherwise, the next owner might
    /// receive a message from this owner's device.
    fn free_lpis(&self, block: LpiBlock) {
        for lpi in block.lpis() {
            let mark = |record: &mut Record| {
                let cached_at = record.cached_at();
                record.deferred = Deferred::Free(cached_at);
                cached_at
            };
            // Mark the LPI before clearing it, so that the LPI is also cleared at a redistributor
            // that is asleep now, once it wakes.
            let Some(cached_at) = self.records.update(self.platform(), lpi, mark) else { continue };
            if self.lpis().disable(lpi).is_err() {
                self.note(MsiError::UnknownVector(lpi.intid().hwirq()));
            }
            let cleared = self
                .redistributors
                .invalidate(cached_at.iter(), LpiBlock::one(lpi))
                .and_then(|()| {
                    let missed = cached_at.filter(|cpu| !self.redistributors.clear_at(cpu, lpi));
                    // In early architecture revisions, `GICR_SYNCR` also tracks clears, so wait for
                    // it again.
                    self.redistributors
                        .invalidate(cached_at.iter(), LpiBlock::one(lpi))
                        .map(|()| missed)
                });
            match cleared {
                Ok(missed) => self.free_if_cleared(lpi, |cpu| missed.contains(cpu)),
                Err(error) => {
                    self.records.remove(self.platform(), lpi);
                    self.note(error);
                }
            }
        }
    }

    /// Returns a freed LPI to the allocator, unless it must still be cleared at a redistributor for
    /// which `missed` returns `true`.
    pub(super) fn free_if_cleared(&self, lpi: Lpi, missed: impl Fn(Cpu) -> bool) {
        let done = self.records.update(self.platform(), lpi, |record| {
            let Deferred::Free(left) = record.deferred else { return false };
            let left = left.filter(missed);
            record.deferred = Deferred::Free(left);
            left.is_empty()
        });
        // Of several concurrent callers, only the one that removes the record frees the LPI.
        if done == Some(true) && self.records.remove(self.platform(), lpi).is_some() {
            self.free(LpiRange::from_parts(lpi, NonZeroU32::MIN));
        }
    }

    fn free(&self, range: LpiRange) {
        let first = range.first();
        if self.lpis().free(range).is_err() {
            self.note(MsiError::UnknownVector(first.intid().hwirq()));
        }
    }
}
