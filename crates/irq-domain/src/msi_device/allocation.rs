//! Vectors for a device: negotiated, placed, numbered, written; or nothing at all.

use super::counts::Counts;
use super::{Allocation, Domain, Entry, MsiVector, Power, State};
use crate::descriptor::{NewDescriptor, Presence, Source};
use crate::error::MsiDeviceError;
use crate::interrupts::Interrupts;
use crate::irq::Flow;
use crate::table::VECTORS;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use msi_types::{
    Attachment, BlockRequest, Capability, Cpu, Fit, Initially, LevelMessages, Masking, MsiError, MsiMessage,
    Shape, Slots, StoreError, Trigger, VectorBlock,
};

impl Domain {
    pub(super) fn allocate(
        self: &Arc<Self>,
        core: &Interrupts,
        shape: Shape,
        wanted: RangeInclusive<u16>,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        // No CPU goes off line between being chosen and being seen as a target.
        let _placing = core.hotplug.read(core.host());
        let mut state = self.state.lock(core.host());
        self.check_present(&state)?;
        let free = self.free_slots(&state);
        let mut counts = Counts::new(shape, wanted, &state, free.len())?;
        if shape == Shape::AlignedGroup && self.store.trigger() == Trigger::Level {
            return Err(MsiError::NoLevels.into());
        }
        if shape == Shape::AlignedGroup && counts.most > 1 {
            match self.require(Capability::Groups) {
                // A group of one is none.
                Err(_) if counts.least <= 1 => counts.most = 1,
                other => other?,
            }
        }
        self.share.with(core.host(), |attachment| {
            let draft = Draft::new(self, core, attachment, state.next_allocation);
            let draft = match shape {
                Shape::Independent => draft.independent(counts, &free),
                Shape::AlignedGroup => draft.group(counts, &free),
            }?;
            self.establish(&mut state, draft, shape)
        })
    }

    pub(super) fn allocate_at(
        self: &Arc<Self>,
        core: &Interrupts,
        slots: &[u16],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let _placing = core.hotplug.read(core.host());
        let mut state = self.state.lock(core.host());
        self.check_present(&state)?;
        self.check_slots(&state, slots)?;
        self.share.with(core.host(), |attachment| {
            let mut draft = Draft::new(self, core, attachment, state.next_allocation);
            draft.spread(slots)?;
            self.establish(&mut state, draft, Shape::Independent)
        })
    }

    /// Composes, writes and commits what was drafted.
    pub(super) fn establish(
        &self,
        state: &mut State,
        mut draft: Draft<'_>,
        shape: Shape,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        draft.compose()?;
        self.write(&draft.vectors, shape, state.power).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.quieten(draft.vectors.keys().copied(), state.power);
        })?;
        let (allocations, vectors) = draft.commit();
        state.power = Power::On;
        for allocation in allocations {
            state.allocations.insert(state.next_allocation, allocation);
            state.next_allocation += 1;
        }
        let granted = vectors.iter().map(|(slot, entry)| entry.info(*slot)).collect();
        state.vectors.extend(vectors);
        Ok(granted)
    }

    pub(super) fn check_slots(&self, state: &State, slots: &[u16]) -> Result<(), MsiDeviceError> {
        if slots.is_empty() {
            return Err(MsiDeviceError::BadCount { min: 0, max: 0 });
        }
        let mut seen = BTreeSet::new();
        slots.iter().try_for_each(|slot| {
            if *slot >= self.store.slots() {
                return Err(MsiDeviceError::NoSlot(*slot));
            }
            let free = seen.insert(*slot) && !state.vectors.contains_key(slot);
            if free { Ok(()) } else { Err(MsiDeviceError::SlotInUse(*slot)) }
        })
    }

    /// The domain was not torn down, and may have more vectors.
    pub(super) fn check_present(&self, state: &State) -> Result<(), MsiDeviceError> {
        if state.gone {
            return Err(MsiDeviceError::Gone);
        }
        match state.power {
            Power::Off => Ok(()),
            Power::On => Ok(self.require(Capability::LateAllocation)?),
        }
    }

    fn free_slots(&self, state: &State) -> Vec<u16> {
        (0..self.store.slots()).filter(|slot| !state.vectors.contains_key(slot)).collect()
    }

    /// Puts the messages into the store, each masked if that is how it is held back, and turns the store on.
    pub(super) fn write(
        &self,
        vectors: &BTreeMap<u16, Entry>,
        shape: Shape,
        power: Power,
    ) -> Result<(), MsiDeviceError> {
        if shape == Shape::AlignedGroup {
            let count = u16::try_from(vectors.len()).ok().and_then(NonZeroU16::new);
            self.store.grant(count.unwrap_or(NonZeroU16::MIN))?;
        }
        let masked_here = self.endpoint_mask().is_some();
        self.store.update(&mut |slots: &mut dyn Slots| {
            for (slot, entry) in vectors {
                slots.mask(*slot);
                match (entry.message, entry.deassert) {
                    (Some(assert), Some(deassert)) => {
                        slots.write_level(*slot, LevelMessages { assert, deassert });
                    }
                    (Some(message), None) => slots.write(*slot, message),
                    (None, _) => {}
                }
                if !masked_here {
                    slots.unmask(*slot);
                }
            }
        })?;
        if power == Power::Off {
            self.store.set_enabled(true)?;
        }
        Ok(())
    }

    /// Clears slots that lose their vectors, and turns the store off if it is to be off. Leaves nothing undone
    /// because something else failed. Task.
    pub(super) fn quieten(
        &self,
        mut slots: impl Iterator<Item = u16>,
        power: Power,
    ) -> Result<(), StoreError> {
        let cleared = self.store.update(&mut |open: &mut dyn Slots| {
            slots.by_ref().for_each(|slot| open.clear(slot));
        });
        let off = if power == Power::Off { self.store.set_enabled(false) } else { Ok(()) };
        off.and(cleared)
    }

    /// What the controller has to fit, and how the store will be rewritten.
    pub(super) fn fit(&self) -> Fit {
        self.store.fit()
    }

    pub(super) fn can_mask(&self) -> bool {
        self.store.masking() == Masking::PerVector
    }

    fn flow(&self) -> Flow {
        match self.store.trigger() {
            Trigger::Edge => Flow::Edge,
            Trigger::Level => Flow::Level,
        }
    }

    /// Messages are held back at the endpoint or by the gate: the controller is spared an invalidation for each. An
    /// interrupt becomes a level while the controller holds it back.
    fn initially(&self) -> Initially {
        match self.store.trigger() {
            Trigger::Edge => Initially::Unmasked,
            Trigger::Level => Initially::Masked,
        }
    }
}

/// A smaller request may succeed.
fn is_shortage(error: MsiDeviceError) -> bool {
    let MsiDeviceError::Controller(refused) = error else { return false };
    matches!(refused, MsiError::NoVectors { .. } | MsiError::DeviceFull { .. } | MsiError::NoGroups)
}

/// What was taken so far; dropped before [`commit`](Self::commit), it gives all of it back.
pub(super) struct Draft<'a> {
    domain: &'a Arc<Domain>,
    core: &'a Interrupts,
    attachment: &'a Attachment,
    /// The number of the first allocation.
    first: u64,
    allocations: Vec<Allocation>,
    vectors: BTreeMap<u16, Entry>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        domain: &'a Arc<Domain>,
        core: &'a Interrupts,
        attachment: &'a Attachment,
        first: u64,
    ) -> Self {
        Self { domain, core, attachment, first, allocations: Vec::new(), vectors: BTreeMap::new() }
    }

    /// Independent vectors: the most that are wanted at once; where the controller is short of them, one
    /// after the other until it has none.
    fn independent(mut self, counts: Counts, free: &[u16]) -> Result<Self, MsiDeviceError> {
        let most = free.get(..usize::from(counts.most)).unwrap_or(free);
        match self.spread(most) {
            Ok(()) => return Ok(self),
            Err(error) if is_shortage(error) => self.give_back(),
            Err(error) => return Err(error),
        }
        for slot in most {
            match self.spread(&[*slot]) {
                Err(error) if is_shortage(error) && self.vectors.len() >= counts.least.into() => break,
                other => other?,
            }
        }
        Ok(self)
    }

    /// The largest group that the controller has.
    fn group(mut self, counts: Counts, free: &[u16]) -> Result<Self, MsiDeviceError> {
        let cpu = self.core.choose_cpu().ok_or(MsiDeviceError::NoCpu)?;
        let mut result = Err(MsiDeviceError::BadCount { min: counts.least, max: counts.most });
        for count in counts.groups() {
            let slots = free.get(..usize::from(count)).unwrap_or(free);
            result = self.allocate_block(Shape::AlignedGroup, cpu, slots.to_vec());
            match result {
                Err(error) if is_shortage(error) => self.give_back(),
                _ => break,
            }
        }
        result.map(|()| self)
    }

    /// Independent vectors on the CPUs that the policy spreads them over: one request for each CPU.
    fn spread(&mut self, slots: &[u16]) -> Result<(), MsiDeviceError> {
        let mut by_cpu: BTreeMap<Cpu, Vec<u16>> = BTreeMap::new();
        for slot in slots {
            let cpu = self.core.choose_cpu().ok_or(MsiDeviceError::NoCpu)?;
            by_cpu.entry(cpu).or_default().push(*slot);
        }
        let mut requests = by_cpu.into_iter();
        requests.try_for_each(|(cpu, slots)| self.allocate_block(Shape::Independent, cpu, slots))
    }

    fn allocate_block(&mut self, shape: Shape, choice: Cpu, slots: Vec<u16>) -> Result<(), MsiDeviceError> {
        let Some(count) = u16::try_from(slots.len()).ok().and_then(NonZeroU16::new) else {
            return Ok(());
        };
        // A controller without groups can serve a group of one.
        let shape = if count == NonZeroU16::MIN { Shape::Independent } else { shape };
        let (domain, attachment) = (self.domain, self.attachment);
        let (block, cpu) = self.core.first_reachable(choice, |cpu| {
            let (fit, initially) = (domain.fit(), domain.initially());
            let request = BlockRequest { count, shape, fit, cpu, initially };
            domain.parent().allocate(attachment, &request).map(|block| (block, cpu))
        })?;
        match shape {
            Shape::AlignedGroup => self.take_in(Allocation { block, shape, slots }, cpu, None),
            // All are the draft's before the first can fail.
            Shape::Independent => {
                let first = self.allocations.len();
                let single = |(block, slot)| Allocation { block, shape, slots: alloc::vec![slot] };
                self.allocations.extend(block.split().zip(slots).map(single));
                (first..self.allocations.len()).try_for_each(|index| self.number(index, cpu, None))
            }
        }
    }

    /// A vector that is delivered to `among` alone: at first to one on line that has the fewest such vectors.
    pub(super) fn allocate_managed(&mut self, slot: u16, among: &[Cpu]) -> Result<(), MsiDeviceError> {
        let (domain, attachment) = (self.domain, self.attachment);
        let placed = Interrupts::first_of(self.core.least_managed(among).into_iter(), |cpu| {
            let (fit, initially) = (domain.fit(), domain.initially());
            let (count, shape) = (NonZeroU16::MIN, Shape::Independent);
            let request = BlockRequest { count, shape, fit, cpu, initially };
            domain.parent().allocate_managed(attachment, &request, among).map(|block| (block, cpu))
        });
        let (block, cpu) = placed.ok_or(MsiDeviceError::NoCpu)??;
        let allocation = Allocation { block, shape: Shape::Independent, slots: alloc::vec![slot] };
        self.take_in(allocation, cpu, Some(&Arc::from(among)))
    }

    fn take_in(
        &mut self,
        allocation: Allocation,
        cpu: Cpu,
        among: Option<&Arc<[Cpu]>>,
    ) -> Result<(), MsiDeviceError> {
        self.allocations.push(allocation);
        self.number(self.allocations.len() - 1, cpu, among)
    }

    /// Gives the vectors of an allocation their numbers.
    fn number(&mut self, index: usize, cpu: Cpu, among: Option<&Arc<[Cpu]>>) -> Result<(), MsiDeviceError> {
        let Some(Allocation { block, slots, .. }) = self.allocations.get(index) else { return Ok(()) };
        let allocation = self.first + index as u64;
        for (index, slot) in (0..).zip(slots.iter().copied()) {
            let vector = in_range(block, index)?;
            let place = self.core.table.ensure(vector).ok_or(MsiDeviceError::VectorOutOfRange(vector))?;
            place.shared.await_value();
            let descriptor = self.core.number(|irq| NewDescriptor {
                irq,
                vector,
                flow: self.domain.flow(),
                source: Source::Msi { domain: self.domain.clone(), slot },
                target: cpu,
                among: among.cloned(),
                cpus: self.core.cpus(),
                open: self.domain.flow() == Flow::Edge && self.domain.endpoint_mask().is_none(),
            });
            let entry = Entry { allocation, index, descriptor, message: None, deassert: None };
            self.vectors.insert(slot, entry);
        }
        Ok(())
    }

    /// Asks the controller for the messages, and checks that the store can hold them.
    fn compose(&mut self) -> Result<(), MsiDeviceError> {
        let parent = self.domain.parent();
        let fit = self.domain.fit();
        for Allocation { block, shape, slots, .. } in &self.allocations {
            let messages = match shape {
                Shape::Independent => slots.as_slice(),
                Shape::AlignedGroup => slots.get(..1).unwrap_or_default(),
            };
            for (index, slot) in (0..).zip(messages) {
                let (message, deassert) = match self.domain.flow() {
                    Flow::Level => {
                        let LevelMessages { assert, deassert } = parent.compose_level(block, index)?;
                        (assert, Some(deassert))
                    }
                    Flow::Edge | Flow::PerCpu => (parent.compose(block, index)?, None),
                };
                fit.check(message)?;
                deassert.map_or(Ok(()), |deassert| fit.check(deassert))?;
                check_alignment(*shape, block, message)?;
                if let Some(entry) = self.vectors.get_mut(slot) {
                    (entry.message, entry.deassert) = (Some(message), deassert);
                }
            }
        }
        Ok(())
    }

    fn commit(mut self) -> (Vec<Allocation>, BTreeMap<u16, Entry>) {
        (core::mem::take(&mut self.allocations), core::mem::take(&mut self.vectors))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Draft<'_> {
    /// Nothing is drafted any more.
    fn give_back(&mut self) {
        for entry in core::mem::take(&mut self.vectors).into_values() {
            entry.descriptor.control.lock(self.core.host()).handler = Presence::Gone;
            self.core.retire(&entry.descriptor);
        }
        for allocation in core::mem::take(&mut self.allocations) {
            self.domain.parent().free(self.attachment, allocation.block);
        }
    }
}

/// A block's vector, if it lies within the vector space.
fn in_range(block: &VectorBlock, index: u16) -> Result<msi_types::Vector, MsiDeviceError> {
    let vector = block.vector(index).ok_or(MsiDeviceError::VectorOutOfRange(block.first()))?;
    if vector.get() < VECTORS { Ok(vector) } else { Err(MsiDeviceError::VectorOutOfRange(vector)) }
}

/// The device replaces the low bits of a group's data.
fn check_alignment(shape: Shape, block: &VectorBlock, message: MsiMessage) -> Result<(), MsiDeviceError> {
    let count = block.count().get();
    if shape == Shape::AlignedGroup && !message.data.is_multiple_of(u32::from(count)) {
        return Err(MsiDeviceError::Misaligned { data: message.data, count });
    }
    Ok(())
}
