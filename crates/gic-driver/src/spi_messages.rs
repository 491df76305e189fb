//! SPI messages, the common part of MBI and GICv2m. An SPI is allocated to one owner at a time and
//! targets one CPU.
//!
//! A doorbell takes the number of an SPI, which is an ordinary interrupt: the root controller
//! routes, masks and latches it. So the message names no CPU, and changing an affinity leaves it as
//! it is. Each vector of a group moves by itself, and whether one is pending can be read.
//! [`WiredParent`] is the only interface to the GIC below.

mod msi_parent;
mod range_allocator;

pub use range_allocator::SpiRange;
pub(crate) use range_allocator::{RangeAllocator, check_range};

use crate::{Alignment, Platform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use doorbell_lock::IrqLock;
use msi_types::{
    Cpu, DoorbellPage, Granule, HwIrq, LevelMessages, MsiError, MsiMessage, NotIsolated, Shape,
    WiredParent,
};

/// A kind of doorbell.
pub trait Doorbell: fmt::Debug + Send + Sync {
    /// As firmware names the kind (`"mbi"`).
    const KIND: &'static str;
    /// The message that makes an SPI of its ranges pending.
    fn message(&self, spi: HwIrq) -> MsiMessage;
    /// The message that deasserts it, where there is one.
    fn deassert(&self, spi: HwIrq) -> Option<MsiMessage>;
    /// Can a device count the low bits of the data up (MultiMSI)?
    fn groups(&self) -> Groups;
    /// The reason that a device can make other devices' interrupts pending.
    fn not_isolated(&self) -> NotIsolated;
    /// Other registers in the doorbell's page, which a device that reaches it can write.
    fn page(&self, granule: Granule) -> DoorbellPage;
    /// The address that devices write to, or the lowest of them.
    fn address(&self) -> u64;
}

/// Can a group of vectors share one message?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Groups {
    /// Yes: the data is the number, or differs from it by what keeps it aligned.
    Possible,
    /// No: the data is not what tells the vectors apart.
    Impossible,
}

/// SPIs behind doorbells of kind `D`: [`Mbi`](crate::Mbi) and [`V2m`](crate::V2m). Share it in an
/// [`Arc`]; locks are inside. The SPIs belong to it as long as it lives.
pub struct SpiMessages<P: Platform, D> {
    platform: Arc<P>,
    wired: Arc<dyn WiredParent>,
    allocators: IrqLock<Vec<RangeAllocator>>,
    ranges: Vec<SpiRange>,
    doorbells: Vec<D>,
}

/// Vectors of one range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Allocation {
    /// The range's index.
    allocator: usize,
    first: HwIrq,
}

impl<P: Platform, D: Doorbell> SpiMessages<P, D> {
    /// Claims every range, with its doorbell, from `wired`.
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
            // Those claimed so far are released with `new`.
            new.wired.claim(range.first, range.count)?;
            new.allocators.get_mut().push(allocator);
            new.ranges.push(range);
            new.doorbells.push(doorbell);
        }
        Ok(new)
    }

    /// The SPIs, range by range.
    pub fn ranges(&self) -> &[SpiRange] {
        &self.ranges
    }

    /// Each range's doorbell, in the same order.
    pub fn doorbells(&self) -> &[D] {
        &self.doorbells
    }

    /// Allocates vectors from the first range that has room.
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

    /// The doorbell of an allocated vector.
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

    /// Changes the target of a vector; returns the old one.
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
