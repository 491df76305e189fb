//! The one algorithm of affinity changes, for every controller and every endpoint.

use super::{Allocation, Domain, DomainState, StoreEnable};
use crate::error::MoveError;
use crate::host::Host;
use crate::irq::descriptor::Descriptor;
use crate::number::Irq;
use crate::runtime::Runtime;
use alloc::vec::Vec;
use doorbell_fallible::Shared;
use msi_types::{Cpu, HwIrq, Move, MoveOutcome, MsiError, MsiMessage, Rewrite, Shape, StoreUpdate};

impl Domain {
    /// Moves the vector at `slot`, or its whole group if that can only move as a whole.
    ///
    /// Context: task; may sleep.
    pub(crate) fn relocate(
        &self,
        runtime: &Runtime,
        (descriptor, slot): (&Descriptor, u16),
        to: Cpu,
        mut list: Option<&mut Vec<Irq>>,
    ) -> Result<(), MoveError> {
        let mut state = self.state.lock(runtime.host());
        runtime.check_online(to)?;
        let unknown = MoveError::UnknownIrq(descriptor.irq);
        let entry = state.vectors.get(slot).ok_or(unknown)?;
        let allocation = state.allocations.get(entry.first).ok_or(unknown)?;
        if let Some(irqs) = &mut list {
            irqs.try_reserve(allocation.block.count().get().into())?;
        }
        if descriptor.among.as_ref().is_some_and(|among| !among.contains(&to)) {
            return Err(MoveError::NotAmong(to));
        }
        // Asked even if it should be there: controllers move vectors by themselves when a CPU goes.
        let moved = self.parent().begin_move(&allocation.block, slot - entry.first, to)?;
        let Some(group) = Group::of(&moved, allocation) else {
            let stray = MsiError::UnknownVector(moved.first);
            self.parent().end_move(moved, MoveOutcome::RolledBack)?;
            return Err(stray.into());
        };
        if group.is_there(&moved, &state) {
            return self.end(moved, MoveOutcome::Written, &group, &state);
        }
        self.carry_out(runtime, &mut state, moved, &group)?;
        if let Some(irqs) = list {
            irqs.extend(group.members(&state).map(|member| member.irq));
        }
        Ok(())
    }

    /// Waits until no move is in progress and returns the target.
    ///
    /// Context: task; may sleep.
    pub(crate) fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu {
        let _state = self.state.lock(host);
        descriptor.target()
    }

    fn carry_out(
        &self,
        runtime: &Runtime,
        state: &mut DomainState,
        moved: Move,
        group: &Group,
    ) -> Result<(), MoveError> {
        let Some(message) = moved.message else {
            return self.end(moved, MoveOutcome::Written, group, state);
        };
        // Held back until the controller is done too, if that is possible at the endpoint at any
        // time. Else the update masks and unmasks by itself.
        let hold = self.endpoint_mask().is_some();
        if hold {
            group.members(state).for_each(|member| member.begin_rewrite(runtime.host()));
        }
        let result = match self.rewrite(state, group, message) {
            Ok(()) => self.end(moved, MoveOutcome::Written, group, state),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.end(moved, MoveOutcome::RolledBack, group, state);
                Err(error)
            }
        };
        if hold {
            group.members(state).for_each(|member| member.end_rewrite(runtime));
        }
        result
    }

    /// Writes the new message where the old one can be replaced without a moment in between.
    fn rewrite(
        &self,
        state: &mut DomainState,
        group: &Group,
        message: MsiMessage,
    ) -> Result<(), MoveError> {
        self.fit().check(message)?;
        let entry =
            state.vectors.get_mut(group.first).ok_or(MsiError::UnknownVector(group.hwirq))?;
        if !message.data.is_multiple_of(u32::from(group.alignment)) {
            return Err(MoveError::Misaligned { data: message.data, count: group.alignment });
        }
        // Two messages do not change in one step: the device could assert here and deassert there.
        if entry.deassert.is_some() {
            return Err(MsiError::WouldTear.into());
        }
        if state.enable == StoreEnable::On && !self.can_replace(entry.message, message) {
            return Err(MsiError::WouldTear.into());
        }
        let masks_itself = self.endpoint_mask().is_some();
        let written = self.store.update(&mut |update: &mut dyn StoreUpdate| {
            group.slots().for_each(|slot| update.mask(slot));
            update.write(group.first, message);
            if !masks_itself {
                group.slots().for_each(|slot| update.unmask(slot));
            }
        });
        if let Err(error) = written {
            if !masks_itself {
                // A queue that stopped at the message did not come to the unmasking. The first
                // error is reported.
                let _ = self.store.update(&mut |update: &mut dyn StoreUpdate| {
                    group.slots().for_each(|slot| update.unmask(slot));
                });
            }
            return Err(error.into());
        }
        entry.message = Some(message);
        Ok(())
    }

    /// Could the device send half of the old message and half of the new?
    fn can_replace(&self, old: Option<MsiMessage>, new: MsiMessage) -> bool {
        let Some(old) = old else { return false };
        match self.fit().rewrite {
            Rewrite::Masked => self.can_mask() || old == new,
            Rewrite::Atomic64 => true,
            Rewrite::AddressOnly => old.data == new.data,
            Rewrite::LowWordOnly => {
                old.address_high() == new.address_high() && old.data == new.data
            }
            Rewrite::Never => old == new,
        }
    }

    fn end(
        &self,
        moved: Move,
        outcome: MoveOutcome,
        group: &Group,
        state: &DomainState,
    ) -> Result<(), MoveError> {
        let to = moved.to;
        let result = self.parent().end_move(moved, outcome);
        // The endpoint's message is the truth, even if the controller failed to finish.
        if outcome == MoveOutcome::Written {
            group.members(state).for_each(|member| member.set_target(to));
        }
        Ok(result?)
    }
}

/// The vectors that a controller moves together.
struct Group {
    /// The slot that holds their message.
    first: u16,
    hwirq: HwIrq,
    /// The device replaces the low data bits of its message: it has to be a multiple of this.
    alignment: u16,
    count: u16,
}

impl Group {
    /// `None` if the controller names vectors that are not of this allocation, or moves independent
    /// ones together.
    fn of(moved: &Move, allocation: &Allocation) -> Option<Self> {
        let index = allocation.block.index_of(moved.first)?;
        let count = moved.count.get();
        if index.checked_add(count)? > allocation.block.count().get() {
            return None;
        }
        let alignment = match allocation.shape {
            Shape::Independent if count > 1 => return None,
            Shape::Independent => 1,
            Shape::AlignedGroup => allocation.block.count().get(),
        };
        Some(Self {
            first: allocation.first.checked_add(index)?,
            hwirq: moved.first,
            alignment,
            count,
        })
    }

    fn slots(&self) -> impl Iterator<Item = u16> {
        (self.first..=u16::MAX).take(self.count.into())
    }

    fn members<'a>(&self, state: &'a DomainState) -> impl Iterator<Item = &'a Shared<Descriptor>> {
        self.slots().filter_map(|slot| state.vectors.get(slot)).map(|entry| &entry.descriptor)
    }

    /// The move changes nothing: neither for the controller, nor for the store, nor for the core.
    fn is_there(&self, moved: &Move, state: &DomainState) -> bool {
        let stored = state.vectors.get(self.first).and_then(|entry| entry.message);
        moved.from == moved.to
            && (moved.message.is_none() || moved.message == stored)
            && self.members(state).all(|member| member.target() == moved.to)
    }
}
