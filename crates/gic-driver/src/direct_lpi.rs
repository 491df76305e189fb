//! Direct LPIs, which are signaled without an ITS. A device writes the INTID to the `GICR_SETLPIR`
//! of the redistributor that should signal the interrupt (IHI 0069 §5.1, "Direct LPIs").
//!
//! The LPIs form a flat namespace, without DeviceIDs, EventIDs or per-device tables and
//! allocations. This module and an ITS share only the tables and the allocator of
//! [`Lpis`]. The driver requires that all redistributors of a machine have
//! `GICR_SETLPIR` and its related registers. Firmware must state that devices use direct LPIs; the
//! driver can't infer this from the absence of an ITS.
//!
//! - A message's address selects the CPU, and its data is the LPI. An affinity change must
//!   therefore rewrite the endpoint's message address, in two phases.
//!   [`begin_move`](msi_types::MsiParent::begin_move) prepares the new redistributor, which may
//!   have cached an old configuration byte of this LPI. The caller then rewrites the endpoint and
//!   reads it back. [`end_move`](msi_types::MsiParent::end_move) then makes the new CPU the LPI's
//!   target.
//! - An LPI that was pending at the old redistributor is still delivered there. Pending state can't
//!   be read while LPIs are enabled, so masking and unmasking have to invalidate at both
//!   redistributors. If an LPI is moved across many CPUs, the driver clears it at its earlier
//!   targets and resends it at the current one.
//! - Pending LPIs are not lost when a CPU [goes offline](DirectLpi::cpu_off).
//! - Devices are not isolated from each other, and the driver reports this to its callers.
//!
//! # Why an LPI stays pending where it was
//! The driver records earlier targets. An alternative would be to clear the LPI at the old
//! redistributor when a move ends. However, software can't tell whether the LPI is pending there,
//! and an endpoint's Pending Bit Array (PBA) only shows messages that the endpoint has not sent
//! yet. Clearing the LPI would lose messages; clearing and then resending it at the new target
//! would cause a spurious handler run on every move. The table compares both designs on the
//! redistributors used in tests, for a vector that moves across all CPUs round-robin (register
//! accesses per operation; spurious handler runs in 100 moves):
//!
//! | CPUs | move | mask | free | runs | | move | mask | free | runs |
//! |---|---|---|---|---|---|---|---|---|---|
//! | | this driver | | | | | with clearing | | | |
//! | 1 | – | 4 | 9 | 0 | | – | 4 | 9 | 0 |
//! | 2 | 4 | 8 | 18 | 0 | | 6 | 4 | 9 | 100 |
//! | 4 | 4 | 16 | 36 | 0 | | 6 | 4 | 9 | 100 |
//! | 8, 64 | 5 | 12 | 18 | 33 | | 6 | 4 | 9 | 100 |
//!
//! ```text
//! lock order, outermost first; each masks interrupts, none is held while waiting for hardware
//!   record of an LPI
//!     LPI configuration bytes (of `Lpis`)
//!   invalidations of a redistributor
//! ```
//! `RegisterAccess` is not a lock: it prevents accesses to the registers of a sleeping
//! redistributor.

mod hotplug;
mod msi_parent;
mod records;
mod redistributors;

pub use hotplug::{CpuOff, CpuOn};
#[doc(hidden)]
pub use records::{Resend, ResendObserver, ResendReason};
pub use redistributors::DirectLpiError;

use crate::gic::GicWithLpis;
use crate::lpi::{LpiError, LpiMessages, LpiRange, Lpis};
use crate::{Alignment, Gic, GicPlatform, MmioExt};
use alloc::sync::Arc;
use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};
use core::ops::Range;
use doorbell_fallible::lock::IrqLock;
use gic_arch::{IntId, Lpi, Priority, gicr};
use msi_types::{BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, Initially, MsiError, Shape};
use records::{CpuSet, Deferred, LpiBlock, PreviousTargets, Record, Records};
use redistributors::DirectRedistributors;

/// Direct LPIs on one GIC. Shared in an [`Arc`]; locking is internal. This type is the
/// [`MsiParent`](msi_types::MsiParent) of every bus and platform device that firmware assigns to
/// direct LPIs. A device needs no DeviceID mapping.
///
/// ```
/// extern crate alloc;
/// use alloc::sync::Arc;
/// use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
/// use gic_driver::{Gic, GicPlatform};
/// use msi_types::{BlockRequest, MsiError, MsiMessage, MsiParent, RequesterId};
///
/// /// Call this after `Gic::cpu_on` has turned on each CPU and returned `Some`.
/// fn bring_up<P: GicPlatform>(gic: Arc<Gic<P>>) -> Result<DirectLpi<P>, DirectLpiError> {
///     DirectLpi::new(gic)
/// }
///
/// fn first_message(
///     parent: &dyn MsiParent,
///     wanted: &BlockRequest,
/// ) -> Result<MsiMessage, MsiError> {
///     let device = parent.attach(RequesterId::pci(1, 0, 0), wanted.count.get().into())?;
///     let block = parent.allocate(&device, wanted)?;
///     // The address of GICR_SETLPIR of the requested CPU, and the INTID as data.
///     parent.compose(&block, 0)
/// }
/// ```
pub struct DirectLpi<P: GicPlatform> {
    redistributors: DirectRedistributors<P>,
    records: Records,
    fault: IrqLock<Option<MsiError>>,
    observer: Option<Arc<dyn ResendObserver>>,
}

impl<P: GicPlatform> DirectLpi<P> {
    /// Claims a GIC's LPIs. CPUs that are online can be targeted immediately, and other CPUs after
    /// [`cpu_on`](Self::cpu_on).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`DirectLpiError::NotDirect`] names the first redistributor that lacks the registers.
    /// [`LpiError::Claimed`] means that an ITS or another `DirectLpi`
    /// uses the LPIs of this GIC. In both cases, no redistributor is accessed.
    /// [`DirectLpiError::Fault`] if a redistributor failed; [`DirectLpiError::NoMemory`].
    pub fn new(gic: Arc<Gic<P>>) -> Result<Self, DirectLpiError> {
        let redistributors = DirectRedistributors::new(GicWithLpis::new(gic)?)?;
        let gic = redistributors.gic().clone();
        let lpis = gic.lpis();
        // If the tables were adopted, LPIs may still be pending for a previous kernel at any
        // redistributor.
        let unowned = if lpis.were_adopted() { CpuSet::ALL } else { CpuSet::NONE };
        let records = Records::new(lpis.count(), unowned).map_err(|_| DirectLpiError::NoMemory)?;
        lpis.claim(LpiMessages::Direct)?;
        let new = Self { redistributors, records, fault: IrqLock::new(None), observer: None };
        for cpu in gic.cpus().filter(|cpu| gic.is_on(*cpu)) {
            // A redistributor with LPIs disabled only prevents its own CPU from being targeted.
            if new.redistributors.takes_lpis(cpu) {
                new.open(cpu).map_err(DirectLpiError::Fault)?;
            }
        }
        Ok(new)
    }

    /// Adds an observer for LPIs that the driver itself resends. Tests use it to compare handler
    /// runs with messages; it is not part of the public interface.
    #[doc(hidden)]
    pub fn with_observer(mut self, observer: Arc<dyn ResendObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Returns a CPU's doorbell (the physical address of its `GICR_SETLPIR`), or `None` if the CPU
    /// has no redistributor.
    pub fn doorbell(&self, cpu: Cpu) -> Option<u64> {
        self.redistributors.doorbell(cpu)
    }

    /// Returns all doorbells, e.g. to map them into an IOMMU domain.
    pub fn doorbells(&self) -> impl Iterator<Item = u64> {
        self.redistributors.doorbells()
    }

    /// Returns the CPU that an LPI targets, or `None` if the LPI is not allocated.
    ///
    /// Context: any.
    pub fn target(&self, lpi: Lpi) -> Option<Cpu> {
        let record = self.records.get(self.platform(), lpi)?;
        (!record.is_freed()).then_some(record.target)
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
        self.configure(hwirq, |lpi| self.lpis().set_priority(lpi, priority))
    }

    /// Returns the GIC.
    pub fn gic(&self) -> &Arc<Gic<P>> {
        self.redistributors.gic()
    }

    /// Removes and returns the last error of an operation that can't return an error (masking,
    /// freeing).
    pub fn take_fault(&self) -> Option<MsiError> {
        self.fault.with(self.platform(), Option::take)
    }

    /// Stores a configuration, then invalidates it at every redistributor at which the LPI may be
    /// pending. The record must be read after the store: a move that starts later performs its own
    /// invalidation at the new redistributor.
    fn configure(
        &self,
        hwirq: HwIrq,
        store: impl FnOnce(Lpi) -> Result<(), LpiError>,
    ) -> Result<(), MsiError> {
        let (lpi, _) = self.find(hwirq)?;
        store(lpi).map_err(|_| MsiError::UnknownVector(hwirq))?;
        let (_, record) = self.find(hwirq)?;
        self.redistributors.invalidate(record.cached_at().iter(), LpiBlock::one(lpi))
    }

    /// Makes an LPI pending at its target, or defers the resend until the target is online.
    fn deliver(&self, lpi: Lpi, record: &mut Record, reason: ResendReason) {
        // Merge two deferred resends into one and keep the reason that makes a spurious handler run
        // less likely.
        let reason = match record.deferred {
            Deferred::SetPending(before) => reason.min(before),
            Deferred::Nothing | Deferred::Free(_) => reason,
        };
        let resend = Resend { hwirq: lpi.intid().hwirq(), cpu: record.target, reason };
        let done = self.redistributors.at(record.target, |redistributor| {
            self.observer.iter().for_each(|observer| observer.resending(resend));
            redistributor.mmio().write(gicr::SETLPIR, lpi.get().into());
            self.observer.iter().for_each(|observer| observer.resent(resend));
        });
        record.deferred =
            if done.is_some() { Deferred::Nothing } else { Deferred::SetPending(reason) };
    }

    /// Resends an LPI that may be pending at earlier targets, and then clears it there. The LPI
    /// can't be lost because it is resent first.
    fn resend_from(&self, left: impl Iterator<Item = Cpu>, lpi: Lpi, record: &mut Record) {
        self.deliver(lpi, record, ResendReason::Unknowable);
        for cpu in left {
            if !self.redistributors.clear_at(cpu, lpi) {
                record.stale = record.stale.with(cpu);
            }
            record.previous.remove(cpu);
        }
    }

    /// Returns an allocated LPI and its record.
    fn find(&self, hwirq: HwIrq) -> Result<(Lpi, Record), MsiError> {
        let lpi = Lpi::try_from(hwirq.get()).ok();
        lpi.and_then(|lpi| Some((lpi, self.records.get(self.platform(), lpi)?)))
            .ok_or(MsiError::UnknownVector(hwirq))
    }

    fn lpis(&self) -> &Lpis<P> {
        self.redistributors.gic().lpis()
    }

    fn platform(&self) -> &P {
        self.redistributors.platform()
    }

    fn note(&self, error: MsiError) {
        self.fault.with(self.platform(), |fault| *fault = Some(error));
    }

    /// Implements [`MsiParent::allocate`](msi_types::MsiParent::allocate).
    ///
    /// Context: task; may sleep.
    fn allocate_block(&self, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
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
    fn free_block(&self, block: &HwIrqBlock) {
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
    fn free_if_cleared(&self, lpi: Lpi, missed: impl Fn(Cpu) -> bool) {
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

impl<P: GicPlatform> Drop for DirectLpi<P> {
    fn drop(&mut self) {
        self.redistributors.gic().lpis().unclaim();
    }
}

impl<P: GicPlatform> fmt::Debug for DirectLpi<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectLpi").field("gic", self.redistributors.gic()).finish_non_exhaustive()
    }
}

/// First INTID that does not fit in PCI MSI's 16 data bits. While higher INTIDs are free, lower
/// ones are reserved for endpoints that need them.
const SHORT: u32 = 1 << 16;
