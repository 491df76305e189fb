//! Transactional vector allocation. A transaction places a device's vectors on CPUs, numbers them
//! and composes their messages. If a step fails, everything is rolled back.

use super::endpoint::Endpoint;
use super::vector_table::{Allocation, Counts, DeviceVector, Messages, VectorTable};
use crate::affinity::placement::least_managed;
use crate::affinity::{Candidates, PlacedVector, Placement, first_of, first_reachable};
use crate::error::MsiDeviceError;
use crate::irq::control::HandlerPhase;
use crate::irq::descriptor::{IrqSource, NewDescriptor, Source, Target};
use crate::irq::dispatch_table::HWIRQS;
use crate::irq::handler::Flow;
use crate::request::root_controller::IrqCore;
use crate::sort::sorted;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_fallible::{Shared, try_collect};
use msi_types::{
    Attachment, BlockRequest, Cpu, HwIrq, HwIrqBlock, LevelMessages, MsiError, MsiMessage,
    MsiParent, Shape,
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
