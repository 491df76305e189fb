//! Table of the offered functions and their messages.

use super::injection::{END_OF_SPIS, Target};
use super::{FunctionInterrupts, HostConfig, HostError, HostFunction, Injection};
use crate::protocol::{
    DeviceDescription, DeviceKey, InterruptDescriptor, MAX_GROUP, Retarget, Slot,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::MsiMessage;

/// Lowest SPI.
const FIRST_SPI: u32 = 32;

/// Vectors that a local APIC accepts in messages (SDM vol. 3A §11.11.2).
const APIC_VECTORS: core::ops::RangeInclusive<u32> = 0x10..=0xfe;

/// Group of vectors with one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    pub(super) data: u32,
    pub(super) count: u16,
}

impl Mapping {
    fn range(self) -> core::ops::Range<u64> {
        let first = u64::from(self.data);
        first..first + u64::from(self.count)
    }

    pub(super) fn data(self) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |index| self.data.wrapping_add(index.into()))
    }
}

/// State of an ejection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ejection {
    None,
    /// The request must be sent to the guest.
    Pending,
    /// The request was sent to the guest.
    Asked,
}

/// Offered function.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) function: HostFunction,
    interrupts: Arc<FunctionInterrupts>,
    pub(super) is_assigned: bool,
    pub(super) ejection: Ejection,
    pub(super) mappings: Vec<Mapping>,
}

impl Offered {
    pub(super) const fn slot(&self) -> Slot {
        self.function.description.slot
    }

    pub(super) fn vectors(&self) -> u32 {
        self.mappings.iter().map(|mapping| u32::from(mapping.count)).sum()
    }

    pub(super) fn begin_ejection(&mut self) {
        if self.ejection == Ejection::None {
            self.ejection = Ejection::Pending;
        }
    }

    pub(super) fn ejection_was_sent(&mut self) {
        self.ejection = Ejection::Asked;
    }

    /// Releases the resources and all messages of the function.
    pub(super) fn release(&mut self) {
        self.is_assigned = false;
        let mappings = core::mem::take(&mut self.mappings);
        self.interrupts.clear(mappings.iter().flat_map(|mapping| mapping.data()));
    }

    /// Adds a mapping, which the caller must have validated. Its first vector is delivered to
    /// `first`.
    pub(super) fn insert(&mut self, mapping: Mapping, first: Target) -> Result<(), HostError> {
        self.mappings.try_reserve(1).map_err(|_| HostError::NoMemory)?;
        self.mappings.push(mapping);
        for (index, data) in (0..).zip(mapping.data()) {
            let vector = first.vector.wrapping_add(index);
            self.interrupts.set(data, Target { vector, ..first });
        }
        Ok(())
    }

    /// Returns the targets of a mapping's vectors.
    pub(super) fn targets(&self, mapping: Mapping) -> impl Iterator<Item = Target> {
        mapping.data().filter_map(|data| self.interrupts.target(data))
    }

    /// Changes the target of one vector of a mapping.
    pub(super) fn set_target(&self, data: u32, target: Target) {
        self.interrupts.set(data, target);
    }

    /// Unmaps the vectors of the message with this data. The data identifies the message on the
    /// bus, so the number of vectors in the guest's request is ignored.
    pub(super) fn delete(&mut self, data: u32) -> bool {
        let found = self.mappings.iter().position(|mapping| mapping.data == data);
        let Some(index) = found else { return false };
        let mapping = self.mappings.swap_remove(index);
        self.interrupts.clear(mapping.data());
        true
    }
}

/// Functions of a bus, in order of slots.
#[derive(Debug, Default)]
pub(super) struct OfferTable(Vec<Offered>);

impl OfferTable {
    pub(super) fn offer(
        &mut self,
        function: HostFunction,
        interrupts: Arc<FunctionInterrupts>,
    ) -> Result<(), HostError> {
        let slot = function.description.slot;
        let Err(index) = self.find(slot) else { return Err(HostError::SlotInUse(slot)) };
        self.0.try_reserve(1).map_err(|_| HostError::NoMemory)?;
        let (is_assigned, ejection, mappings) = (false, Ejection::None, Vec::new());
        self.0.insert(index, Offered { function, interrupts, is_assigned, ejection, mappings });
        Ok(())
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<()> {
        let index = self.find(slot).ok()?;
        self.0.remove(index).release();
        Some(())
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Offered> {
        self.0.get(self.find(slot).ok()?)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Offered> {
        let index = self.find(slot).ok()?;
        self.0.get_mut(index)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Offered> {
        self.0.iter()
    }

    pub(super) fn descriptions(&self) -> impl Iterator<Item = DeviceDescription> {
        self.0.iter().map(|offered| offered.function.description)
    }

    /// Returns a function whose ejection must be requested from the guest.
    pub(super) fn ejection(&self) -> Option<Slot> {
        self.0.iter().find(|offered| offered.ejection == Ejection::Pending).map(Offered::slot)
    }

    /// Releases all functions when the bus is turned off.
    pub(super) fn power_off(&mut self) {
        for offered in &mut self.0 {
            offered.release();
            if offered.ejection == Ejection::Asked {
                offered.ejection = Ejection::Pending;
            }
        }
    }

    /// Returns the mapping for an interrupt and its first target, or `None` if the guest is not
    /// allowed to have it.
    pub(super) fn map(
        &self,
        config: &HostConfig,
        injection: &Injection,
        slot: Slot,
        interrupt: &InterruptDescriptor,
    ) -> Option<(Mapping, Target)> {
        let (vector, count) = (interrupt.vector, interrupt.count);
        let processor = *interrupt.processors.indices().first()?;
        let data = match injection {
            Injection::Spi(_) => vector,
            Injection::Apic { .. } => self.free_data(count, injection.data_values(config.quota))?,
        };
        let (mapping, first) = (Mapping { data, count }, Target { vector, processor });
        let allowed = self.allows(config, injection, slot, mapping);
        (allowed && is_target(config, injection, mapping, first)).then_some((mapping, first))
    }

    /// Returns `true` if a function may have this mapping in addition to the existing ones.
    pub(super) fn allows(
        &self,
        config: &HostConfig,
        injection: &Injection,
        slot: Slot,
        mapping: Mapping,
    ) -> bool {
        let Mapping { data, count } = mapping;
        let limit = injection.data_values(config.quota) as u64;
        let is_sound = count.is_power_of_two()
            && count <= MAX_GROUP
            && data.is_multiple_of(count.into())
            && mapping.range().end <= limit;
        let used = self.get(slot).map_or(0, Offered::vectors) + u32::from(count);
        is_sound && used <= config.quota.into() && self.is_free(mapping.range())
    }

    /// Returns `true` if no message has data in this range. Data must be unique on the bus, because
    /// the retarget hypercall does not name the device number.
    fn is_free(&self, range: core::ops::Range<u64>) -> bool {
        let mut all = self.0.iter().flat_map(|offered| &offered.mappings);
        !all.any(|other| other.range().start < range.end && range.start < other.range().end)
    }

    fn free_data(&self, count: u16, limit: usize) -> Option<u32> {
        let limit = u32::try_from(limit).ok()?;
        (0..limit).step_by(count.max(1).into()).find(|data| {
            let first = u64::from(*data);
            self.is_free(first..first + u64::from(count))
        })
    }

    /// Retargets a vector. Returns `None` if the vector or the target does not exist.
    pub(super) fn retarget(&mut self, config: &HostConfig, retarget: &Retarget) -> Option<()> {
        let Retarget { device, message, vector, processor } = *retarget;
        let address = MsiMessage { address: config.address, data: 0 }.address_low();
        let is_sound = message.address == u64::from(address)
            && APIC_VECTORS.contains(&vector)
            && processor < config.processors;
        let mut named = self
            .0
            .iter_mut()
            .filter(|offered| DeviceKey::new(config.instance, offered.slot()) == device);
        let owner = named.find(|offered| {
            let mut mappings = offered.mappings.iter();
            mappings.any(|mapping| mapping.range().contains(&message.data.into()))
        });
        let target = Target { vector, processor };
        owner.filter(|_| is_sound)?.set_target(message.data, target);
        Some(())
    }

    fn find(&self, slot: Slot) -> Result<usize, usize> {
        self.0.binary_search_by_key(&slot, Offered::slot)
    }
}

/// Returns `true` if the first vector of a mapping can be delivered to this target. On x86, the
/// guest retargets the vectors of a group one by one afterwards.
pub(super) fn is_target(
    config: &HostConfig,
    injection: &Injection,
    mapping: Mapping,
    first: Target,
) -> bool {
    let exists = match injection {
        Injection::Spi(_) => {
            first.vector == mapping.data
                && first.vector >= FIRST_SPI
                && mapping.range().end <= END_OF_SPIS.into()
        }
        Injection::Apic { .. } => APIC_VECTORS.contains(&first.vector),
    };
    exists && first.processor < config.processors
}
