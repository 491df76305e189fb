//! Transactional vector allocation, and the algorithm for affinity changes, which all controllers
//! and endpoints share. A transaction places a device's vectors on CPUs, numbers them and composes
//! their messages. If a step fails, everything is rolled back.

use super::endpoint::{Endpoint, StoreEnable};
use super::vector_table::{Allocation, Counts, DeviceVector, Messages, VectorTable, sorted};
use crate::affinity::{
    Candidates, PlacedVector, Placement, first_of, first_reachable, least_managed,
};
use crate::error::{MoveError, MsiDeviceError};
use crate::irq::control::HandlerPhase;
use crate::irq::descriptor::{Descriptor, HWIRQS, IrqSource, NewDescriptor, Source, Target};
use crate::irq::handler::Flow;
use crate::name::Irq;
use crate::request::root_controller::IrqCore;
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_fallible::{Shared, try_collect};
use msi_types::{
    Attachment, BlockRequest, Cpu, HwIrq, HwIrqBlock, LevelMessages, Move, MoveOutcome, MsiError,
    MsiMessage, MsiParent, Shape,
};

/// Returns `true` if a smaller request might succeed.
fn is_shortage(error: MsiDeviceError) -> bool {
    let MsiDeviceError::Controller(refused) = error else { return false };
    matches!(refused, MsiError::NoVectors { .. } | MsiError::DeviceFull { .. } | MsiError::NoGroups)
}

/// Creates the interrupt source for a slot.
pub(super) type MakeSource<'a> = &'a dyn Fn(u16) -> Result<Shared<dyn IrqSource>, TryReserveError>;

/// The device for which a [`Transaction`] allocates vectors, and the CPUs that they may target.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) core: &'a IrqCore,
    pub(super) device: &'a str,
    pub(super) parent: &'a dyn MsiParent,
    pub(super) attachment: &'a Attachment,
    pub(super) endpoint: &'a Endpoint,
    pub(super) make_source: MakeSource<'a>,
    pub(super) online: &'a [Cpu],
}

/// The resources allocated so far. Unless it is [committed](Self::commit), dropping the transaction
/// frees them.
pub(super) struct Transaction<'a> {
    site: Site<'a>,
    taken: VectorTable,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(site: Site<'a>) -> Self {
        Self { site, taken: VectorTable::default() }
    }

    /// Returns the vectors allocated so far.
    pub(super) const fn taken(&self) -> &VectorTable {
        &self.taken
    }

    /// Allocates independent vectors. Tries the largest wanted count in one step, then allocates
    /// one by one until the controller is exhausted.
    pub(super) fn independent(
        &mut self,
        counts: Counts,
        free: &[u16],
    ) -> Result<(), MsiDeviceError> {
        let most = free.get(..usize::from(counts.most)).unwrap_or(free);
        match self.spread(most) {
            Ok(()) => return Ok(()),
            Err(error) if is_shortage(error) => self.give_back(),
            Err(error) => return Err(error),
        }
        for slot in most {
            match self.spread(&[*slot]) {
                Err(error)
                    if is_shortage(error) && self.taken.vectors.len() >= counts.least.into() =>
                {
                    break;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Allocates the largest group that the controller can provide. A group is its store's only
    /// allocation, so it starts at slot 0.
    pub(super) fn group(&mut self, counts: Counts) -> Result<(), MsiDeviceError> {
        let cpu = self.choose_cpu(0)?;
        let mut result = Err(MsiDeviceError::BadCount { min: counts.least, max: counts.most });
        for count in counts.groups() {
            result = self.allocate_group(count, cpu);
            match result {
                Err(error) if is_shortage(error) => self.give_back(),
                _ => break,
            }
        }
        result
    }

    fn allocate_group(&mut self, count: u16, choice: Cpu) -> Result<(), MsiDeviceError> {
        let Some(count) = NonZeroU16::new(count) else { return Ok(()) };
        self.taken.reserve(1, count.get().into())?;
        // A controller without groups can serve a group of one.
        let shape = if count == NonZeroU16::MIN { Shape::Independent } else { Shape::AlignedGroup };
        let (block, cpu) = self.request(count, shape, choice)?;
        self.take_in(Allocation { block, shape, first: 0 }, cpu, None)
    }

    /// Allocates independent vectors on the CPUs that the policy chooses. Makes a single request
    /// for each CPU.
    pub(super) fn spread(&mut self, slots: &[u16]) -> Result<(), MsiDeviceError> {
        let mut placed = Vec::new();
        placed.try_reserve_exact(slots.len())?;
        for slot in slots {
            placed.push((self.choose_cpu(*slot)?, *slot));
        }
        sorted(placed)
            .chunk_by(|(one, _), (next, _)| one == next)
            .try_for_each(|part| self.allocate_on(part))
    }

    /// Allocates independent vectors for slots that target the same CPU.
    fn allocate_on(&mut self, slots: &[(Cpu, u16)]) -> Result<(), MsiDeviceError> {
        let count = u16::try_from(slots.len()).ok().and_then(NonZeroU16::new);
        let Some((count, (choice, _))) = count.zip(slots.first()) else { return Ok(()) };
        self.taken.reserve(slots.len(), slots.len())?;
        let shape = Shape::Independent;
        let (block, cpu) = self.request(count, shape, *choice)?;
        // The transaction must own all blocks before any step can fail, so that a rollback frees
        // them.
        for (block, (_, first)) in block.split().zip(slots) {
            self.taken.add_allocation(Allocation { block, shape, first: *first });
        }
        slots.iter().try_for_each(|(_, slot)| self.number(*slot, cpu, None))
    }

    /// Allocates a vector that may only target CPUs of `among`. The first target is the online CPU
    /// of `among` with the fewest managed vectors.
    pub(super) fn allocate_managed(
        &mut self,
        slot: u16,
        among: &[Cpu],
    ) -> Result<(), MsiDeviceError> {
        let Site { core, parent, attachment, online, .. } = self.site;
        let (count, shape) = (NonZeroU16::MIN, Shape::Independent);
        let follows = try_collect(among.iter().copied())?;
        let mut room = Candidates::try_new(core.registry.runtime().cpus())?;
        self.taken.reserve(1, 1)?;
        let placed = first_of(least_managed(&core.registry, among, online, &mut room), |cpu| {
            let request = self.block_request(count, shape, cpu);
            parent.allocate_managed(attachment, &request, among).map(|block| (block, cpu))
        });
        let (block, cpu) = placed.ok_or(MsiDeviceError::NoCpu)??;
        self.take_in(Allocation { block, shape, first: slot }, cpu, Some(follows))
    }

    /// Asks the policy for the CPU of the new vector at `slot`.
    fn choose_cpu(&self, slot: u16) -> Result<Cpu, MsiDeviceError> {
        let Site { core, device, attachment, online, .. } = self.site;
        let (requester, vector) = (Some(attachment.requester()), PlacedVector::Slot(slot));
        let place = Placement { online, device: Some(device), requester, vector };
        core.pool.choose(&place).ok_or(MsiDeviceError::NoCpu)
    }

    /// Allocates a block that targets the chosen CPU, or another one if the controller can't reach
    /// it.
    fn request(
        &self,
        count: NonZeroU16,
        shape: Shape,
        choice: Cpu,
    ) -> Result<(HwIrqBlock, Cpu), MsiError> {
        let Site { parent, attachment, online, .. } = self.site;
        first_reachable(choice, online, |cpu| {
            let request = self.block_request(count, shape, cpu);
            parent.allocate(attachment, &request).map(|block| (block, cpu))
        })
    }

    fn block_request(&self, count: NonZeroU16, shape: Shape, cpu: Cpu) -> BlockRequest {
        let endpoint = self.site.endpoint;
        BlockRequest::new(count, endpoint.fit(), cpu)
            .with_shape(shape)
            .with_initially(endpoint.initially())
    }

    /// Adds an allocation and numbers its vectors. The caller must have reserved room for the
    /// allocation.
    fn take_in(
        &mut self,
        allocation: Allocation,
        cpu: Cpu,
        among: Option<Vec<Cpu>>,
    ) -> Result<(), MsiDeviceError> {
        let first = allocation.first;
        self.taken.add_allocation(allocation);
        self.number(first, cpu, among)
    }

    /// Numbers the vectors of the allocation at slot `first`. A managed vector always has its own
    /// allocation.
    fn number(
        &mut self,
        first: u16,
        cpu: Cpu,
        mut among: Option<Vec<Cpu>>,
    ) -> Result<(), MsiDeviceError> {
        let Site { core: IrqCore { registry, .. }, endpoint, make_source, .. } = self.site;
        let Some(allocation) = self.taken.allocations.get(first) else { return Ok(()) };
        let slots = allocation.slots();
        for (index, slot) in (0..).zip(slots) {
            let Some(allocation) = self.taken.allocations.get(first) else { return Ok(()) };
            let hwirq = in_range(&allocation.block, index)?;
            let entry = registry.dispatcher.ensure(hwirq)?;
            let entry = entry.ok_or(MsiDeviceError::VectorOutOfRange(hwirq))?;
            let target = match self.site.parent.line(hwirq) {
                None => Target::own(cpu),
                Some(line) => {
                    let wired = |source: &Source| matches!(source, Source::Wired(_));
                    let found = registry.find_hwirq(line, wired);
                    Target::Line(found.ok_or(MsiError::UnknownVector(line))?)
                }
            };
            let source = Source::Device(make_source(slot)?);
            let flow = endpoint.flow();
            let descriptor = registry.insert(|irq| NewDescriptor {
                irq,
                hwirq,
                flow,
                source,
                target,
                among: among.take(),
                cpus: registry.runtime().cpus(),
                unmasked: flow == Flow::Edge && endpoint.mask().is_none(),
            })?;
            entry.shared.await_value();
            self.taken.vectors.insert(slot, DeviceVector { first, descriptor, messages: None });
        }
        Ok(())
    }

    /// Composes the messages of the new vectors.
    pub(super) fn compose(&mut self) -> Result<(), MsiDeviceError> {
        compose(self.site.parent, self.site.endpoint, &mut self.taken)
    }

    /// Ends the transaction and hands the vectors to the caller.
    pub(super) fn commit(mut self) -> VectorTable {
        core::mem::take(&mut self.taken)
    }

    /// Frees all vectors allocated so far.
    fn give_back(&mut self) {
        let IrqCore { registry, .. } = self.site.core;
        let (allocations, vectors) = core::mem::take(&mut self.taken).into_parts();
        for vector in vectors {
            vector.descriptor.control.lock(registry.host()).remove(HandlerPhase::Gone);
            registry.retire(&vector.descriptor);
        }
        for allocation in allocations {
            self.site.parent.free(self.site.attachment, allocation.block);
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Has the controller compose the messages of a table, and checks that they fit the store.
///
/// Context: task; may sleep.
pub(super) fn compose(
    parent: &dyn MsiParent,
    endpoint: &Endpoint,
    table: &mut VectorTable,
) -> Result<(), MsiDeviceError> {
    let fit = endpoint.fit();
    // We only need one message per allocation: an independent vector has its own, and a group
    // shares one.
    table.compose(|Allocation { block, shape, .. }| {
        let (message, deassert) = match endpoint.flow() {
            Flow::Level => {
                let LevelMessages { assert, deassert } = parent.compose_level(block, 0)?;
                (assert, Some(deassert))
            }
            Flow::Edge | Flow::PerCpu => (parent.compose(block, 0)?, None),
        };
        fit.check(message)?;
        deassert.map_or(Ok(()), |deassert| fit.check(deassert))?;
        check_alignment(*shape, block, message)?;
        Ok(Messages { message, deassert })
    })
}

/// Returns a vector from a block after checking that it is within the vector space.
fn in_range(block: &HwIrqBlock, index: u16) -> Result<HwIrq, MsiDeviceError> {
    let hwirq = block.hwirq(index).ok_or(MsiDeviceError::VectorOutOfRange(block.first()))?;
    if hwirq.get() < HWIRQS { Ok(hwirq) } else { Err(MsiDeviceError::VectorOutOfRange(hwirq)) }
}

/// Checks that a group's data is aligned, so that the device can replace its low bits.
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

/// A move of vectors. The caller must hold the device's lock.
pub(super) struct Relocation<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) parent: &'a dyn MsiParent,
    pub(super) endpoint: &'a Endpoint,
    pub(super) enable: StoreEnable,
    pub(super) table: &'a mut VectorTable,
}

impl Relocation<'_> {
    /// Moves the vector at `slot`, or its whole group if the vector belongs to a group that cannot
    /// be split. Returns `false` if all of it already was there. If the caller passes a list, adds
    /// the group's other interrupts to it.
    ///
    /// Context: task; may sleep.
    pub(super) fn run(
        mut self,
        (descriptor, slot): (&Descriptor, u16),
        to: Cpu,
        mut others: Option<&mut Vec<Irq>>,
    ) -> Result<bool, MoveError> {
        self.runtime.check_online(to)?;
        let unknown = MoveError::UnknownIrq(descriptor.irq);
        let (_, allocation) = self.table.find(slot).ok_or(unknown)?;
        if let Some(irqs) = &mut others {
            irqs.try_reserve(usize::from(allocation.alignment()) - 1)?;
        }
        if descriptor.among.as_ref().is_some_and(|among| !among.contains(&to)) {
            return Err(MoveError::NotAmong(to));
        }
        // Don't stop even if the core already records `to` as the target: the controller may have
        // moved the vector itself when a CPU went offline.
        let moved = self.parent.begin_move(&allocation.block, slot - allocation.first, to)?;
        let Some(group) = Group::of(&moved, allocation) else {
            let stray = MsiError::UnknownVector(moved.first);
            self.parent.end_move(moved, MoveOutcome::RolledBack)?;
            return Err(stray.into());
        };
        if group.is_there(&moved, self.table) {
            self.end(moved, MoveOutcome::Written, &group)?;
            return Ok(false);
        }
        self.carry_out(moved, &group)?;
        if let Some(irqs) = others.filter(|_| group.count > 1) {
            let all = group.members(self.table).map(|member| member.irq);
            irqs.extend(all.filter(|irq| *irq != descriptor.irq));
        }
        Ok(true)
    }

    fn carry_out(&mut self, moved: Move, group: &Group) -> Result<(), MoveError> {
        let Some(message) = moved.message else {
            return self.end(moved, MoveOutcome::Written, group);
        };
        // If the endpoint can be masked in any context, keep it masked until the controller has
        // finished the move. Otherwise, the store's update masks and unmasks it.
        let hold = self.endpoint.mask().is_some();
        let host: &dyn Host = self.runtime.host();
        if hold {
            group.members(self.table).for_each(|member| member.begin_rewrite(host));
        }
        let result = match self.rewrite(group, message) {
            Ok(()) => self.end(moved, MoveOutcome::Written, group),
            Err(error) => {
                // Report the first error.
                let _ = self.end(moved, MoveOutcome::RolledBack, group);
                Err(error)
            }
        };
        if hold {
            group.members(self.table).for_each(|member| member.end_rewrite(self.runtime));
        }
        result
    }

    /// Writes the new message, provided that the device can never send a mix of it and the old one.
    fn rewrite(&mut self, group: &Group, message: MsiMessage) -> Result<(), MoveError> {
        self.endpoint.fit().check(message)?;
        let entry =
            self.table.vectors.get_mut(group.first).ok_or(MsiError::UnknownVector(group.hwirq))?;
        if !message.data.is_multiple_of(u32::from(group.alignment)) {
            return Err(MoveError::Misaligned { data: message.data, count: group.alignment });
        }
        // We can't change two messages in one step: the device could assert the interrupt at the
        // old CPU and deassert it at the new one.
        if entry.messages.is_some_and(|messages| messages.deassert.is_some()) {
            return Err(MsiError::WouldTear.into());
        }
        let replaceable = self.endpoint.can_replace(entry.message(), message);
        if self.enable == StoreEnable::On && !replaceable {
            return Err(MsiError::WouldTear.into());
        }
        self.endpoint.rewrite(&group.slots(), message)?;
        entry.messages = Some(Messages { message, deassert: None });
        self.endpoint.update_copies(group.slots(), |slot| self.table.sent_message(slot));
        Ok(())
    }

    fn end(&self, moved: Move, outcome: MoveOutcome, group: &Group) -> Result<(), MoveError> {
        let to = moved.to;
        let result = self.parent.end_move(moved, outcome);
        // The endpoint's message is authoritative, even if the controller failed to finish the
        // move.
        if outcome == MoveOutcome::Written {
            group.members(self.table).for_each(|member| member.set_target(to));
        }
        Ok(result?)
    }
}

/// Vectors that a controller moves together.
struct Group {
    /// Slot that holds the shared message.
    first: u16,
    hwirq: HwIrq,
    /// Required alignment of the message data. The device replaces the low bits.
    alignment: u16,
    count: u16,
}

impl Group {
    /// Returns the group that moves. Returns `None` if the controller refers to vectors outside
    /// this allocation, or moves several independent vectors together.
    fn of(moved: &Move, allocation: &Allocation) -> Option<Self> {
        let index = allocation.block.index_of(moved.first)?;
        let count = moved.count.get();
        if index.checked_add(count)? > allocation.block.count().get() {
            return None;
        }
        if allocation.shape == Shape::Independent && count > 1 {
            return None;
        }
        Some(Self {
            first: allocation.first.checked_add(index)?,
            hwirq: moved.first,
            alignment: allocation.alignment(),
            count,
        })
    }

    fn slots(&self) -> impl Iterator<Item = u16> + Clone {
        (self.first..=u16::MAX).take(self.count.into())
    }

    fn members<'a>(&self, table: &'a VectorTable) -> impl Iterator<Item = &'a Shared<Descriptor>> {
        self.slots().filter_map(|slot| table.vectors.get(slot)).map(|entry| &entry.descriptor)
    }

    /// Returns `true` if the controller, the store and the core all record the new target already.
    fn is_there(&self, moved: &Move, table: &VectorTable) -> bool {
        let stored = table.vectors.get(self.first).and_then(DeviceVector::message);
        moved.from == moved.to
            && (moved.message.is_none() || moved.message == stored)
            && self.members(table).all(|member| member.target() == moved.to)
    }
}
