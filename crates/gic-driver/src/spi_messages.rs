//! SPIs signaled by messages: the code shared by MBI and GICv2m. An SPI is allocated to one owner
//! at a time and targets one CPU.
//!
//! A message encodes an SPI, and the root controller routes, masks and latches it like any other
//! interrupt. Therefore, the message does not encode a CPU and doesn't change with the affinity,
//! each vector in a group can be moved separately, and a vector's pending state can be read. The
//! code accesses the underlying GIC only through [`WiredParent`].

mod msi_parent;
mod range_allocator;

pub use range_allocator::SpiRange;
pub(crate) use range_allocator::{RangeAllocator, check_range};

use crate::{Alignment, Platform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use doorbell_fallible::lock::IrqLock;
use msi_types::{
    Cpu, DoorbellPage, Granule, HwIrq, LevelMessages, MsiError, MsiMessage, NotIsolated, Shape,
    WiredParent,
};

/// A kind of doorbell, i.e. the address and data by which a device signals an SPI.
pub trait Doorbell: fmt::Debug + Send + Sync {
    /// Name of the kind, as in firmware (`"mbi"`).
    const KIND: &'static str;
    /// Returns the message that makes an SPI pending.
    fn message(&self, spi: HwIrq) -> MsiMessage;
    /// Returns the message that deasserts an SPI, if the doorbell supports it.
    fn deassert(&self, spi: HwIrq) -> Option<MsiMessage>;
    /// Returns whether a group of vectors can share a message (MultiMSI).
    fn groups(&self) -> Groups;
    /// Returns the reason why a device can make other devices' interrupts pending.
    fn not_isolated(&self) -> NotIsolated;
    /// Returns whether the doorbell's page contains other registers, which a device with access to
    /// the page could write.
    fn page(&self, granule: Granule) -> DoorbellPage;
    /// Returns the address that devices write to, or the lowest of these addresses.
    fn address(&self) -> u64;
}

/// Support for groups of vectors that share one message. For each vector of a group, the device
/// replaces the low bits of the message's data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Groups {
    /// Groups are possible: the data is the INTID, or differs from it by an offset that preserves
    /// the alignment.
    Possible,
    /// Groups are impossible: consecutive data does not select the vectors of an aligned group.
    Impossible,
}

/// SPIs behind doorbells of kind `D`: [`Mbi`](crate::Mbi) and [`V2m`](crate::V2m). Shared in an
/// [`Arc`]; locking is internal. The value owns the SPIs until it is dropped.
pub struct SpiMessages<P: Platform, D> {
    platform: Arc<P>,
    wired: Arc<dyn WiredParent>,
    allocators: IrqLock<Vec<RangeAllocator>>,
    ranges: Vec<SpiRange>,
    doorbells: Vec<D>,
}

/// Vectors allocated from one range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Allocation {
    /// The range's index.
    allocator: usize,
    first: HwIrq,
}

impl<P: Platform, D: Doorbell> SpiMessages<P, D> {
    /// Claims every range and its doorbell from `wired`.
    ///
    /// Context: task; may sleep.
    pub(crate) fn claim(
        platform: Arc<P>,
        wired: Arc<dyn WiredParent>,
        ranges: impl IntoIterator<Item = (SpiRange, D)>,
    ) -> Result<Self, MsiError> {
        let (allocators, doorbells) = (IrqLock::new(Vec::new()), Vec::new());
        let mut new = Self { platform, wired, allocators, ranges: Vec::new(), doorbells };
        for (range, doorbell) in ranges {
            let no_memory = MsiError::NoMemory("a range of SPIs");
            let allocator = RangeAllocator::new(range).map_err(|_| no_memory)?;
            new.allocators.get_mut().try_reserve(1).map_err(|_| no_memory)?;
            new.ranges.try_reserve(1).map_err(|_| no_memory)?;
            new.doorbells.try_reserve(1).map_err(|_| no_memory)?;
            // If this fails, dropping `new` releases the ranges claimed so far.
            new.wired.claim(range.first, range.count)?;
            new.allocators.get_mut().push(allocator);
            new.ranges.push(range);
            new.doorbells.push(doorbell);
        }
        Ok(new)
    }

    /// Returns the SPI ranges.
    pub fn ranges(&self) -> &[SpiRange] {
        &self.ranges
    }

    /// Returns each range's doorbell, in the order of [`ranges`](Self::ranges).
    pub fn doorbells(&self) -> &[D] {
        &self.doorbells
    }

    /// Allocates vectors from the first range with enough free SPIs.
    fn allocate_vectors(&self, count: NonZeroU16, shape: Shape) -> Result<Allocation, MsiError> {
        let no_vectors = MsiError::NoVectors { wanted: count.get() };
        let align = match shape {
            Shape::Independent => Alignment::ONE,
            Shape::AlignedGroup => Alignment::of_group(count.into()).ok_or(no_vectors)?,
        };
        let fits = |allocator: usize| {
            let doorbell = self.doorbells.get(allocator);
            doorbell.is_some_and(|doorbell| {
                count.get() == 1
                    || shape == Shape::Independent
                    || doorbell.groups() == Groups::Possible
            })
        };
        if !(0..self.doorbells.len()).any(fits) {
            return Err(MsiError::NoGroups);
        }
        self.allocators.with(&*self.platform, |allocators| {
            allocators
                .iter_mut()
                .enumerate()
                .filter(|(number, _)| fits(*number))
                .find_map(|(number, allocator)| {
                    Some(Allocation { allocator: number, first: allocator.allocate(count, align)? })
                })
                .ok_or(no_vectors)
        })
    }

    fn free_vectors(&self, first: HwIrq, count: NonZeroU16) {
        self.allocators.with(&*self.platform, |allocators| {
            for allocator in allocators.iter_mut() {
                allocator.free(first, count);
            }
        });
    }

    /// Returns an allocated vector's doorbell.
    fn doorbell_of(&self, hwirq: HwIrq) -> Result<&D, MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let number = self.allocators.with(&*self.platform, |allocators| {
            allocators.iter().position(|allocator| allocator.owns(hwirq))
        });
        number.and_then(|number| self.doorbells.get(number)).ok_or(unknown)
    }

    fn message_of(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        Ok(self.doorbell_of(hwirq)?.message(hwirq))
    }

    fn level_messages_of(&self, hwirq: HwIrq) -> Result<LevelMessages, MsiError> {
        let doorbell = self.doorbell_of(hwirq)?;
        let deassert = doorbell.deassert(hwirq).ok_or(MsiError::NoLevels)?;
        Ok(LevelMessages { assert: doorbell.message(hwirq), deassert })
    }

    /// Records a vector's new target and returns the old one.
    fn retarget(&self, hwirq: HwIrq, cpu: Cpu) -> Result<Cpu, MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        self.allocators.with(&*self.platform, |allocators| {
            allocators
                .iter_mut()
                .find_map(|allocator| allocator.retarget(hwirq, cpu))
                .ok_or(unknown)
        })
    }

    fn target(&self, hwirq: HwIrq) -> Result<Cpu, MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        self.allocators.with(&*self.platform, |allocators| {
            allocators.iter().find_map(|allocator| allocator.target(hwirq)).ok_or(unknown)
        })
    }
}

impl<P: Platform, D> Drop for SpiMessages<P, D> {
    fn drop(&mut self) {
        for range in &self.ranges {
            self.wired.release(range.first, range.count);
        }
    }
}

impl<P: Platform, D: fmt::Debug> fmt::Debug for SpiMessages<P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpiMessages").field("doorbells", &self.doorbells).finish_non_exhaustive()
    }
}
