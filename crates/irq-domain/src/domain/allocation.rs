//! Vectors for a device: negotiated, placed, numbered, written; or nothing at all.

use super::counts::Counts;
use super::source::SlotSource;
use super::{Allocation, DeviceVector, Domain, DomainState, MsiVector, StoreEnable};
use crate::affinity::choice::{first_of, first_reachable};
use crate::affinity::lists::Candidates;
use crate::affinity::placement::least_managed;
use crate::error::MsiDeviceError;
use crate::irq::control::HandlerPhase;
use crate::irq::descriptor::{IrqSource, NewDescriptor, Source};
use crate::irq::dispatch_table::HWIRQS;
use crate::irq::flow::Flow;
use crate::request::parts::IrqCore;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use doorbell_fallible::{Shared, SortedMap, try_collect};
use msi_types::{
    Attachment, BlockRequest, Capability, Cpu, Fit, HwIrqBlock, Initially, LevelMessages, Masking,
    MsiError, MsiMessage, Shape, StoreError, StoreUpdate, Trigger,
};

impl Domain {
    pub(super) fn allocate(
        this: &Shared<Self>,
        core: &IrqCore,
        shape: Shape,
        wanted: RangeInclusive<u16>,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        // No CPU goes off line between being chosen and being seen as a target.
        let online = core.placement.online_cpus(core.host());
        let mut state = this.state.lock(core.host());
        this.check_present(&state)?;
        let free = this.free_slots(&state)?;
        let mut counts = Counts::new(shape, wanted, &state, free.len())?;
        if shape == Shape::AlignedGroup && this.store.trigger() == Trigger::Level {
            return Err(MsiError::NoLevels.into());
        }
        if shape == Shape::AlignedGroup && counts.most > 1 {
            match this.require(Capability::Groups) {
                // A group of one is none.
                Err(_) if counts.least <= 1 => counts.most = 1,
                other => other?,
            }
        }
        this.attachment.with(core.host(), |attachment| {
            let transaction = Transaction::new(this, core, attachment, &online);
            let transaction = match shape {
                Shape::Independent => transaction.independent(counts, &free),
                Shape::AlignedGroup => transaction.group(counts),
            }?;
            this.establish(&mut state, transaction, shape)
        })
    }

    pub(super) fn allocate_at(
        this: &Shared<Self>,
        core: &IrqCore,
        slots: &[u16],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let online = core.placement.online_cpus(core.host());
        let mut state = this.state.lock(core.host());
        this.check_present(&state)?;
        this.check_slots(&state, slots)?;
        this.attachment.with(core.host(), |attachment| {
            let mut transaction = Transaction::new(this, core, attachment, &online);
            transaction.spread(slots)?;
            this.establish(&mut state, transaction, Shape::Independent)
        })
    }

    /// Composes, writes and commits what was taken.
    pub(super) fn establish(
        &self,
        state: &mut DomainState,
        mut transaction: Transaction<'_>,
        shape: Shape,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        transaction.compose()?;
        let granted =
            try_collect(transaction.vectors.iter().map(|(slot, entry)| entry.info(slot)))?;
        state.allocations.reserve_many(transaction.allocations.len())?;
        state.vectors.reserve_many(transaction.vectors.len())?;
        self.write(&transaction.vectors, shape, state.enable).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.quieten(transaction.vectors.iter().map(|(slot, _)| slot), state.enable);
        })?;
        state.enable = StoreEnable::On;
        transaction.commit(state);
        Ok(granted)
    }

    pub(super) fn check_slots(
        &self,
        state: &DomainState,
        slots: &[u16],
    ) -> Result<(), MsiDeviceError> {
        if slots.is_empty() {
            return Err(MsiDeviceError::BadCount { min: 0, max: 0 });
        }
        if let Some(stray) = slots.iter().find(|slot| **slot >= self.store.slots()) {
            return Err(MsiDeviceError::NoSlot(*stray));
        }
        let mut sorted = try_collect(slots.iter().copied())?;
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let in_use = slots.iter().copied().find(|slot| state.vectors.contains(*slot));
        in_use.or(twice).map_or(Ok(()), |slot| Err(MsiDeviceError::SlotInUse(slot)))
    }

    /// The domain was not torn down, and may have more vectors.
    pub(super) fn check_present(&self, state: &DomainState) -> Result<(), MsiDeviceError> {
        if state.gone {
            return Err(MsiDeviceError::Gone);
        }
        match state.enable {
            StoreEnable::Off => Ok(()),
            StoreEnable::On => Ok(self.require(Capability::LateAllocation)?),
        }
    }

    fn free_slots(&self, state: &DomainState) -> Result<Vec<u16>, TryReserveError> {
        try_collect((0..self.store.slots()).filter(|slot| !state.vectors.contains(*slot)))
    }

    /// Puts the messages into the store, each masked if that is how it is held back, and turns the
    /// store on.
    pub(super) fn write(
        &self,
        vectors: &SortedMap<u16, DeviceVector>,
        shape: Shape,
        enable: StoreEnable,
    ) -> Result<(), MsiDeviceError> {
        if shape == Shape::AlignedGroup {
            let count = u16::try_from(vectors.len()).ok().and_then(NonZeroU16::new);
            self.store.grant(count.unwrap_or(NonZeroU16::MIN))?;
        }
        let masked_here = self.endpoint_mask().is_some();
        self.store.update(&mut |update: &mut dyn StoreUpdate| {
            for (slot, entry) in vectors.iter() {
                update.mask(slot);
                match (entry.message, entry.deassert) {
                    (Some(assert), Some(deassert)) => {
                        update.write_level(slot, LevelMessages { assert, deassert });
                    }
                    (Some(message), None) => update.write(slot, message),
                    (None, _) => {}
                }
                if !masked_here {
                    update.unmask(slot);
                }
            }
        })?;
        if enable == StoreEnable::Off {
            self.store.set_enabled(true)?;
        }
        Ok(())
    }

    /// Clears slots that lose their vectors, and turns the store off if `enable` says so.
    /// Continues after failures.
    ///
    /// Context: task; may sleep.
    pub(super) fn quieten(
        &self,
        mut slots: impl Iterator<Item = u16>,
        enable: StoreEnable,
    ) -> Result<(), StoreError> {
        let cleared = self.store.update(&mut |update: &mut dyn StoreUpdate| {
            slots.by_ref().for_each(|slot| update.clear(slot));
        });
        let off = if enable == StoreEnable::Off { self.store.set_enabled(false) } else { Ok(()) };
        off.and(cleared)
    }

    /// The messages that the store can hold, and the way it is rewritten.
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

    /// Messages are held back at the endpoint or by the handler cell: the controller is spared an
    /// invalidation for each. An interrupt becomes a level while the controller holds it back.
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

/// Resources taken so far. Drop before [`commit`](Self::commit) gives all of them back.
pub(super) struct Transaction<'a> {
    domain: &'a Shared<Domain>,
    core: &'a IrqCore,
    attachment: &'a Attachment,
    online: &'a [Cpu],
    allocations: Vec<Allocation>,
    vectors: SortedMap<u16, DeviceVector>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        domain: &'a Shared<Domain>,
        core: &'a IrqCore,
        attachment: &'a Attachment,
        online: &'a [Cpu],
    ) -> Self {
        Self {
            domain,
            core,
            attachment,
            online,
            allocations: Vec::new(),
            vectors: SortedMap::new(),
        }
    }

    /// Independent vectors: the most that are wanted at once; where the controller is short of
    /// them, one after the other until it has none.
    fn independent(mut self, counts: Counts, free: &[u16]) -> Result<Self, MsiDeviceError> {
        let most = free.get(..usize::from(counts.most)).unwrap_or(free);
        match self.spread(most) {
            Ok(()) => return Ok(self),
            Err(error) if is_shortage(error) => self.give_back(),
            Err(error) => return Err(error),
        }
        for slot in most {
            match self.spread(&[*slot]) {
                Err(error) if is_shortage(error) && self.vectors.len() >= counts.least.into() => {
                    break;
                }
                other => other?,
            }
        }
        Ok(self)
    }

    /// The largest group that the controller has, from slot 0 on: it is the store's only
    /// allocation.
    fn group(mut self, counts: Counts) -> Result<Self, MsiDeviceError> {
        let cpu = self.choose_cpu()?;
        let mut result = Err(MsiDeviceError::BadCount { min: counts.least, max: counts.most });
        for count in counts.groups() {
            result = self.allocate_group(count, cpu);
            match result {
                Err(error) if is_shortage(error) => self.give_back(),
                _ => break,
            }
        }
        result.map(|()| self)
    }

    fn allocate_group(&mut self, count: u16, choice: Cpu) -> Result<(), MsiDeviceError> {
        let Some(count) = NonZeroU16::new(count) else { return Ok(()) };
        self.reserve(1, count)?;
        // A controller without groups can serve a group of one.
        let shape = if count == NonZeroU16::MIN { Shape::Independent } else { Shape::AlignedGroup };
        let (block, cpu) = self.request(count, shape, choice)?;
        self.take_in(Allocation { block, shape, first: 0 }, cpu, None)
    }

    /// Independent vectors on the CPUs that the policy spreads them over: one request for each CPU.
    fn spread(&mut self, slots: &[u16]) -> Result<(), MsiDeviceError> {
        let mut placed = Vec::new();
        placed.try_reserve_exact(slots.len())?;
        for slot in slots {
            placed.push((self.choose_cpu()?, *slot));
        }
        placed.sort_unstable();
        placed
            .chunk_by(|(one, _), (next, _)| one == next)
            .try_for_each(|part| self.allocate_on(part))
    }

    /// Independent vectors for slots that are all to be on one CPU.
    fn allocate_on(&mut self, slots: &[(Cpu, u16)]) -> Result<(), MsiDeviceError> {
        let count = u16::try_from(slots.len()).ok().and_then(NonZeroU16::new);
        let Some((count, (choice, _))) = count.zip(slots.first()) else { return Ok(()) };
        self.reserve(count.get(), count)?;
        let shape = Shape::Independent;
        let (block, cpu) = self.request(count, shape, *choice)?;
        // All are the transaction's before the first can fail.
        let begin = self.allocations.len();
        let slots = slots.iter().map(|(_, slot)| *slot);
        self.allocations.extend(block.split().zip(slots).map(|(block, first)| Allocation {
            block,
            shape,
            first,
        }));
        (begin..self.allocations.len()).try_for_each(|index| self.number(index, cpu, None))
    }

    /// A vector that is delivered to `among` alone: at first to one on line that has the fewest
    /// such vectors.
    pub(super) fn allocate_managed(
        &mut self,
        slot: u16,
        among: &[Cpu],
    ) -> Result<(), MsiDeviceError> {
        let (domain, attachment) = (self.domain, self.attachment);
        let (count, shape) = (NonZeroU16::MIN, Shape::Independent);
        let follows = try_collect(among.iter().copied())?;
        let mut room = Candidates::try_new(self.core.registry.runtime().cpus())?;
        self.reserve(1, count)?;
        let placed =
            first_of(least_managed(&self.core.registry, among, self.online, &mut room), |cpu| {
                let (fit, initially) = (domain.fit(), domain.initially());
                let request =
                    BlockRequest::new(count, fit, cpu).with_shape(shape).with_initially(initially);
                domain
                    .parent()
                    .allocate_managed(attachment, &request, among)
                    .map(|block| (block, cpu))
            });
        let (block, cpu) = placed.ok_or(MsiDeviceError::NoCpu)??;
        self.take_in(Allocation { block, shape, first: slot }, cpu, Some(follows))
    }

    fn choose_cpu(&self) -> Result<Cpu, MsiDeviceError> {
        self.core.placement.choose(self.online).ok_or(MsiDeviceError::NoCpu)
    }

    /// Asks the controller, for another CPU if that one cannot be reached.
    fn request(
        &self,
        count: NonZeroU16,
        shape: Shape,
        choice: Cpu,
    ) -> Result<(HwIrqBlock, Cpu), MsiError> {
        let (domain, attachment) = (self.domain, self.attachment);
        first_reachable(choice, self.online, |cpu| {
            let (fit, initially) = (domain.fit(), domain.initially());
            let request =
                BlockRequest::new(count, fit, cpu).with_shape(shape).with_initially(initially);
            domain.parent().allocate(attachment, &request).map(|block| (block, cpu))
        })
    }

    /// Makes room for what the controller hands out next.
    fn reserve(&mut self, allocations: u16, vectors: NonZeroU16) -> Result<(), TryReserveError> {
        self.allocations.try_reserve(allocations.into())?;
        self.vectors.reserve_many(vectors.get().into())
    }

    /// Room was made.
    fn take_in(
        &mut self,
        allocation: Allocation,
        cpu: Cpu,
        among: Option<Vec<Cpu>>,
    ) -> Result<(), MsiDeviceError> {
        self.allocations.push(allocation);
        self.number(self.allocations.len() - 1, cpu, among)
    }

    /// Gives the vectors of an allocation their numbers. Managed ones are alone in theirs.
    fn number(
        &mut self,
        index: usize,
        cpu: Cpu,
        mut among: Option<Vec<Cpu>>,
    ) -> Result<(), MsiDeviceError> {
        let Some(allocation) = self.allocations.get(index) else { return Ok(()) };
        for (index, slot) in (0..).zip(allocation.slots()) {
            let hwirq = in_range(&allocation.block, index)?;
            let entry = self
                .core
                .registry
                .dispatcher
                .ensure(hwirq)?
                .ok_or(MsiDeviceError::VectorOutOfRange(hwirq))?;
            let source = SlotSource { domain: self.domain.clone(), slot };
            let source = Shared::<dyn IrqSource>::try_unsized(source, |block| block)?;
            let descriptor = self.core.registry.insert(|irq| NewDescriptor {
                irq,
                hwirq,
                flow: self.domain.flow(),
                source: Source::Device(source),
                target: cpu,
                among: among.take(),
                cpus: self.core.registry.runtime().cpus(),
                unmasked: self.domain.flow() == Flow::Edge && self.domain.endpoint_mask().is_none(),
            })?;
            entry.shared.await_value();
            let vector =
                DeviceVector { first: allocation.first, descriptor, message: None, deassert: None };
            self.vectors.insert(slot, vector);
        }
        Ok(())
    }

    /// Asks the controller for the messages, and checks that the store can hold them.
    fn compose(&mut self) -> Result<(), MsiDeviceError> {
        let parent = self.domain.parent();
        let fit = self.domain.fit();
        // An independent vector is alone in its allocation, and a group has one message.
        for Allocation { block, shape, first } in &self.allocations {
            let (message, deassert) = match self.domain.flow() {
                Flow::Level => {
                    let LevelMessages { assert, deassert } = parent.compose_level(block, 0)?;
                    (assert, Some(deassert))
                }
                Flow::Edge | Flow::PerCpu => (parent.compose(block, 0)?, None),
            };
            fit.check(message)?;
            deassert.map_or(Ok(()), |deassert| fit.check(deassert))?;
            check_alignment(*shape, block, message)?;
            if let Some(entry) = self.vectors.get_mut(*first) {
                (entry.message, entry.deassert) = (Some(message), deassert);
            }
        }
        Ok(())
    }

    /// Moves everything into the device's state. Room was reserved.
    fn commit(mut self, state: &mut DomainState) {
        for allocation in core::mem::take(&mut self.allocations) {
            state.allocations.insert(allocation.first, allocation);
        }
        for (slot, entry) in core::mem::take(&mut self.vectors) {
            state.vectors.insert(slot, entry);
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Transaction<'_> {
    /// Nothing is taken any more.
    fn give_back(&mut self) {
        for entry in core::mem::take(&mut self.vectors).into_values() {
            entry.descriptor.control.lock(self.core.host()).remove(HandlerPhase::Gone);
            self.core.registry.retire(&entry.descriptor);
        }
        for allocation in core::mem::take(&mut self.allocations) {
            self.domain.parent().free(self.attachment, allocation.block);
        }
    }
}

/// A block's vector, if it lies within the vector space.
fn in_range(block: &HwIrqBlock, index: u16) -> Result<msi_types::HwIrq, MsiDeviceError> {
    let hwirq = block.hwirq(index).ok_or(MsiDeviceError::VectorOutOfRange(block.first()))?;
    if hwirq.get() < HWIRQS { Ok(hwirq) } else { Err(MsiDeviceError::VectorOutOfRange(hwirq)) }
}

/// The device replaces the low bits of a group's data.
fn check_alignment(
    shape: Shape,
    block: &HwIrqBlock,
    message: MsiMessage,
) -> Result<(), MsiDeviceError> {
    let count = block.count().get();
    if shape == Shape::AlignedGroup && !message.data.is_multiple_of(u32::from(count)) {
        return Err(MsiDeviceError::Misaligned { data: message.data, count });
    }
    Ok(())
}
