//! The algorithm for affinity changes, shared by all controllers and endpoints.

use super::endpoint::{Endpoint, StoreEnable};
use super::vector_table::{Allocation, DeviceVector, Messages, VectorTable};
use crate::error::MoveError;
use crate::irq::descriptor::Descriptor;
use crate::name::Irq;
use crate::runtime::{Host, Runtime};
use alloc::vec::Vec;
use doorbell_fallible::Shared;
use msi_types::{Cpu, HwIrq, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, Shape};

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
