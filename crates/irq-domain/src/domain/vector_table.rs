//! A device's vectors by slot, the controller blocks they belong to, and the number of vectors that
//! an allocation may grant.

use crate::error::MsiDeviceError;
use crate::irq::descriptor::Descriptor;
use crate::name::Irq;
use alloc::collections::{BinaryHeap, TryReserveError};
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use doorbell_fallible::{Shared, SortedMap, try_collect};
use msi_types::{Cpu, HwIrq, HwIrqBlock, MsiMessage, Shape};

/// A vector that was granted to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiVector {
    /// Slot in the device's message store: the MSI-X table index or Multi-MSI message number.
    pub slot: u16,
    /// IRQ number of the interrupt.
    pub irq: Irq,
    /// Number with which the root controller acknowledges the interrupt.
    pub hwirq: HwIrq,
    /// The CPU that the interrupt targets.
    pub cpu: Cpu,
}

/// The unit in which vectors are freed at the controller: one independent vector, or a group in
/// consecutive slots.
pub(super) struct Allocation {
    pub(super) block: HwIrqBlock,
    pub(super) shape: Shape,
    /// Slot of the first vector.
    pub(super) first: u16,
}

impl Allocation {
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> + use<> {
        (self.first..=u16::MAX).take(self.block.count().get().into())
    }

    /// Returns how many vectors share a message. The message's data must be a multiple of this.
    pub(super) fn alignment(&self) -> u16 {
        match self.shape {
            Shape::Independent => 1,
            Shape::AlignedGroup => self.block.count().get(),
        }
    }
}

/// A vector's messages.
#[derive(Clone, Copy)]
pub(super) struct Messages {
    pub(super) message: MsiMessage,
    /// A level-triggered vector's second message.
    pub(super) deassert: Option<MsiMessage>,
}

/// A vector of the device.
pub(super) struct DeviceVector {
    /// The allocation's first slot.
    pub(super) first: u16,
    pub(super) descriptor: Shared<Descriptor>,
    /// The messages in the store. In a group, only the first vector has messages.
    pub(super) messages: Option<Messages>,
}

impl DeviceVector {
    fn info(&self, slot: u16) -> MsiVector {
        MsiVector {
            slot,
            irq: self.descriptor.irq,
            hwirq: self.descriptor.hwirq,
            cpu: self.descriptor.target(),
        }
    }

    pub(super) fn message(&self) -> Option<MsiMessage> {
        self.messages.map(|messages| messages.message)
    }
}

/// Maximum number of vectors that `Debug` lists.
const LISTED: usize = 8;

/// Vectors and their allocations. Every vector belongs to an allocation. An allocation that is
/// being removed may have no vectors.
#[derive(Default)]
pub(super) struct VectorTable {
    /// Allocations, indexed by first slot.
    pub(super) allocations: SortedMap<u16, Allocation>,
    /// Vectors, indexed by slot (sparse).
    pub(super) vectors: SortedMap<u16, DeviceVector>,
}

/// Lists the first vectors, one per line.
impl fmt::Debug for VectorTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (slot, DeviceVector { descriptor, .. }) in self.vectors.iter().take(LISTED) {
            let (irq, hwirq, cpu) = (descriptor.irq, descriptor.hwirq, descriptor.target());
            let runs: u64 = descriptor.counts.per_cpu().sum();
            list.entry(&format_args!(
                "slot {slot}: irq {irq}, hwirq {hwirq} at CPU {cpu}, {runs} runs"
            ));
        }
        match self.vectors.iter().len().saturating_sub(LISTED) {
            0 => list.finish(),
            more => list.entry(&format_args!("and {more} more")).finish(),
        }
    }
}

impl VectorTable {
    /// Reserves room for this many allocations and vectors.
    pub(super) fn reserve(
        &mut self,
        allocations: usize,
        vectors: usize,
    ) -> Result<(), TryReserveError> {
        self.allocations.reserve_many(allocations)?;
        self.vectors.reserve_many(vectors)
    }

    /// Reserves room for the contents of another table.
    pub(super) fn reserve_for(&mut self, more: &Self) -> Result<(), TryReserveError> {
        self.reserve(more.allocations.len(), more.vectors.len())
    }

    /// Moves the contents of another table into this one. The caller must have reserved room for
    /// them.
    pub(super) fn absorb(&mut self, more: Self) {
        for allocation in more.allocations.into_values() {
            self.add_allocation(allocation);
        }
        for (slot, vector) in more.vectors {
            self.vectors.insert(slot, vector);
        }
    }

    /// Adds an allocation. The caller must have reserved room for it.
    pub(super) fn add_allocation(&mut self, allocation: Allocation) {
        self.allocations.insert(allocation.first, allocation);
    }

    /// Sets the messages of each allocation.
    pub(super) fn compose(
        &mut self,
        mut compose: impl FnMut(&Allocation) -> Result<Messages, MsiDeviceError>,
    ) -> Result<(), MsiDeviceError> {
        for allocation in self.allocations.values() {
            let messages = compose(allocation)?;
            if let Some(vector) = self.vectors.get_mut(allocation.first) {
                vector.messages = Some(messages);
            }
        }
        Ok(())
    }

    /// Removes an independent vector, but not its allocation.
    ///
    /// # Errors
    /// [`MsiDeviceError::NoVector`], [`MsiDeviceError::OfAGroup`].
    pub(super) fn remove(&mut self, slot: u16) -> Result<DeviceVector, MsiDeviceError> {
        let missing = MsiDeviceError::NoVector(slot);
        let (_, allocation) = self.find(slot).ok_or(missing)?;
        if allocation.shape == Shape::AlignedGroup {
            return Err(MsiDeviceError::OfAGroup(slot));
        }
        self.vectors.remove(slot).ok_or(missing)
    }

    /// Returns all allocations and vectors.
    pub(super) fn into_parts(
        self,
    ) -> (impl Iterator<Item = Allocation>, impl Iterator<Item = DeviceVector>) {
        (self.allocations.into_values(), self.vectors.into_values())
    }

    /// Returns a vector with its allocation.
    pub(super) fn find(&self, slot: u16) -> Option<(&DeviceVector, &Allocation)> {
        let vector = self.vectors.get(slot)?;
        Some((vector, self.allocations.get(vector.first)?))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = u16> + Clone {
        self.vectors.iter().map(|(slot, _)| slot)
    }

    /// Returns the shape of the allocations. All of them have the same shape, because a group is
    /// always its store's only allocation.
    pub(super) fn shape(&self) -> Shape {
        self.allocations.values().next().map_or(Shape::Independent, |first| first.shape)
    }

    /// Returns the vectors in the form that their driver receives.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub(super) fn granted(&self) -> Result<Vec<MsiVector>, TryReserveError> {
        try_collect(self.vectors.iter().map(|(slot, vector)| vector.info(slot)))
    }

    /// Returns a vector in the form that its driver receives.
    pub(super) fn vector(&self, slot: u16) -> Option<MsiVector> {
        self.vectors.get(slot).map(|vector| vector.info(slot))
    }

    /// Returns the message that the device sends for a vector.
    pub(super) fn sent_message(&self, slot: u16) -> Option<MsiMessage> {
        let (vector, allocation) = self.find(slot)?;
        match allocation.shape {
            Shape::Independent => vector.message(),
            Shape::AlignedGroup => {
                let base = self.vectors.get(allocation.first)?.message()?;
                Some(MsiMessage { data: base.data | u32::from(slot - allocation.first), ..base })
            }
        }
    }

    /// Returns the vacant slots in a store with `slots` slots.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub(super) fn vacant(&self, slots: u16) -> Result<Vec<u16>, TryReserveError> {
        try_collect((0..slots).filter(|slot| !self.vectors.contains(*slot)))
    }

    /// Checks that each slot in `wanted` exists in a store with `slots` slots, and is vacant.
    pub(super) fn check_vacant(&self, slots: u16, wanted: &[u16]) -> Result<(), MsiDeviceError> {
        if wanted.is_empty() {
            return Err(MsiDeviceError::BadCount { min: 0, max: 0 });
        }
        if let Some(stray) = wanted.iter().find(|slot| **slot >= slots) {
            return Err(MsiDeviceError::NoSlot(*stray));
        }
        let wanted_in_order = sorted(try_collect(wanted.iter().copied())?);
        let twice = wanted_in_order.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let in_use = wanted.iter().copied().find(|slot| self.vectors.contains(*slot));
        in_use.or(twice).map_or(Ok(()), |slot| Err(MsiDeviceError::SlotInUse(slot)))
    }
}

/// The range of acceptable counts.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) most: u16,
    pub(super) least: u16,
}

impl Counts {
    pub(super) fn new(
        shape: Shape,
        wanted: RangeInclusive<u16>,
        table: &VectorTable,
        free: usize,
    ) -> Result<Self, MsiDeviceError> {
        let (min, max) = wanted.into_inner();
        let free = u16::try_from(free).unwrap_or(u16::MAX);
        if shape == Shape::AlignedGroup && !table.vectors.is_empty() {
            return Err(MsiDeviceError::GroupNotFirst);
        }
        if min > free {
            return Err(MsiDeviceError::TooFewSlots { free, wanted: min });
        }
        let most = match shape {
            Shape::Independent => max.min(free),
            Shape::AlignedGroup => power_of_two_up_to(max.min(free)),
        };
        if most < min || most == 0 {
            return Err(MsiDeviceError::BadCount { min, max });
        }
        Ok(Self { most, least: min.max(1) })
    }

    /// Returns the group sizes to try, largest first.
    pub(super) fn groups(self) -> impl Iterator<Item = u16> {
        core::iter::successors(Some(self.most), |count| Some(count / 2))
            .take_while(move |count| *count >= self.least)
    }
}

fn power_of_two_up_to(limit: u16) -> u16 {
    limit.checked_ilog2().map_or(0, |log2| 1 << log2)
}

/// Sorts a vector in ascending order, without allocation.
///
/// A heap sort takes a few hundred bytes of a kernel. `core`'s sorts take 8 KB, and pay off only
/// for vectors that are much longer than ours.
pub(crate) fn sorted<T: Ord>(items: Vec<T>) -> Vec<T> {
    BinaryHeap::from(items).into_sorted_vec()
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_sizes_halve_down_to_the_minimum_count() {
        let counts = Counts { most: 16, least: 3 };
        assert!(counts.groups().eq([16, 8, 4]));
    }

    #[test]
    fn counts_are_rounded_down_to_powers_of_two() {
        assert_eq!(
            [0, 1, 2, 3, 31, 32, u16::MAX].map(power_of_two_up_to),
            [0, 1, 2, 2, 16, 32, 0x8000]
        );
    }
}
