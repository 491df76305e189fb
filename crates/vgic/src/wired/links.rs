//! Virtual interrupts that are linked to physical ones. An interrupt *holds* its physical interrupt
//! from the moment when that was taken and handed to the guest until the guest deactivates it. The
//! hardware does that with a list register; anything else is done here.
//!
//! Every change by which an interrupt ceases to hold is one update of its word, and who made it
//! deactivates the physical interrupt. In the other order, one that fires again could be held up.

use super::listing::Filled;
use super::{Wired, line_of};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use alloc::sync::Arc;
use gic_arch::ich::ListRegisterState::{self, Pending, PendingActive};
use gic_arch::{IntId, IntIdClass};
use msi_types::{Cpu, Level, Line};

/// The hypervisor's side of physical interrupts that virtual ones are
/// [linked](crate::Vgic::link) to. Called without locks held.
pub trait PhysicalInterrupts: Send + Sync {
    /// Returns the current level of the physical input. `line` is level-sensitive and its physical
    /// interrupt is active, so the hypervisor is not notified when the level falls.
    ///
    /// Called on the vCPU's thread before the interrupt is signalled, and after the guest has
    /// exited without acknowledging it; and on any thread that forwards a guest's read of `ISPENDR`
    /// or `ICPENDR`. For the PPI of a vCPU that is on no CPU, implementations must return
    /// [`Level::High`]: the line keeps its state until the vCPU's own thread asks.
    fn level(&self, line: Line, physical: IntId) -> Level;

    /// Deactivates the physical interrupt, so that it may fire again. A PPI must be deactivated on
    /// the CPU on which the vCPU of `line` is loaded, if any: see
    /// [`Vgic::is_physical_active`](crate::Vgic::is_physical_active).
    ///
    /// Context: any.
    fn deactivate(&self, line: Line, physical: IntId);
}

/// A virtual interrupt cannot be linked to a physical one. The hypervisor's mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The machine has no such line.
    #[error("the machine has no {0:?} to link")]
    NoSuchLine(Line),
    /// Only PPIs and SPIs have an active state that a list register can name.
    #[error("INTID {} is no PPI or SPI: nothing can be linked to it", .0.get())]
    NotPhysical(IntId),
    /// [`Vgic::serve_physical`](crate::Vgic::serve_physical) comes first.
    #[error("nobody serves physical interrupts yet")]
    NotServed,
}

impl Wired {
    /// Sets the hypervisor's side. Must be called once.
    pub(crate) fn serve_physical(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), Arc<dyn PhysicalInterrupts>> {
        self.physical.set(physical)
    }

    /// Links a line to a physical interrupt, or to none.
    pub(crate) fn link(&self, line: Line, physical: Option<IntId>) -> Result<(), LinkError> {
        let (cpu, index) = self.input(line).ok_or(LinkError::NoSuchLine(line))?;
        let interrupt = self.interrupt(cpu, index).ok_or(LinkError::NoSuchLine(line))?;
        let physical = physical.map(linkable).transpose()?;
        if self.physical.get().is_none() {
            return Err(LinkError::NotServed);
        }
        let (old, new) = interrupt.update(|state| {
            if state.physical() == physical.map(WiredIndex::intid) {
                state
            } else {
                state.linked(physical)
            }
        });
        self.released(line, old, new);
        if let Some(taker) = old.taker().filter(|_| old.listed() && old != new) {
            self.recall(index.intid(), taker);
        }
        Ok(())
    }

    /// Does an interrupt, which is in no list register, hold its physical interrupt?
    pub(crate) fn is_physical_active(&self, line: Line) -> bool {
        let found = self.input(line).and_then(|(cpu, index)| self.interrupt(cpu, index));
        found.is_some_and(|interrupt| interrupt.state().physical_active())
    }

    /// A change of an interrupt's word was made: if it held its physical interrupt and does no
    /// more, that is deactivated.
    pub(super) fn released(&self, line: Line, old: InterruptWord, new: InterruptWord) {
        if let Some(physical) =
            old.physical().filter(|_| old.physical_active() && !new.physical_active())
        {
            self.deactivate_physical(line, physical);
        }
    }

    pub(super) fn released_at(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        old: InterruptWord,
        new: InterruptWord,
    ) {
        self.released(line_of(cpu, index), old, new);
    }

    pub(super) fn deactivate_physical(&self, line: Line, physical: IntId) {
        if let Some(served) = self.physical.get() {
            served.deactivate(line, physical);
        }
    }

    /// Returns the state of an interrupt that is to be signalled to `cpu`. Must be called on that
    /// vCPU's thread. If a physical input holds the interrupt pending, the input is sampled first.
    #[inline]
    pub(crate) fn state_to_signal(&self, cpu: Cpu, index: WiredIndex) -> InterruptWord {
        let state = self.state(cpu, index);
        if state.is_held_by_input() && state.ready_at(cpu) {
            self.sample_input(cpu, index, state)
        } else {
            state
        }
    }

    /// Returns true if an interrupt that the guest can see is pending, as `ISPENDR` reads it. A
    /// level-sensitive interrupt is pending while its input is asserted or its latch is set (IHI
    /// 0069, `GICD_ISPENDR<n>`).
    pub(crate) fn reads_pending(&self, cpu: Cpu, intid: IntId) -> bool {
        let visible = self.visible(cpu, intid).zip(WiredIndex::of(intid));
        visible.is_some_and(|(state, index)| {
            if state.is_held_by_input() {
                self.sample_input(cpu, index, state).pending()
            } else if state.is_past_its_input() {
                let level = self.input_level(line_of(cpu, index), state);
                state.pending() || level == Level::High
            } else {
                state.pending()
            }
        })
    }

    /// Lowers the line of an interrupt in this state if its physical input has fallen, and returns
    /// its new state. The physical interrupt is deactivated, so that it fires again if the input
    /// has risen since.
    #[cold]
    fn sample_input(&self, cpu: Cpu, index: WiredIndex, state: InterruptWord) -> InterruptWord {
        let line = line_of(cpu, index);
        if self.input_level(line, state) == Level::High {
            return state;
        }
        let lower = |now| (now == state).then(|| state.driven(Level::Low).released());
        match self.interrupt(cpu, index).and_then(|interrupt| interrupt.try_update(lower)) {
            Some((old, new)) => {
                self.released(line, old, new);
                new
            }
            None => self.state(cpu, index),
        }
    }

    fn input_level(&self, line: Line, state: InterruptWord) -> Level {
        match (state.physical(), self.physical.get()) {
            (Some(physical), Some(served)) => served.level(line, physical),
            _ => Level::Low,
        }
    }

    /// The level of a physical interrupt that comes back in a list register unacknowledged.
    pub(super) fn sample(&self, line: Line, filled: Filled, now: ListRegisterState) -> Level {
        let comes_back = matches!(now, Pending | PendingActive);
        match (filled.physical.filter(|_| comes_back), self.physical.get()) {
            (Some(physical), Some(served)) => served.level(line, physical),
            _ => Level::Low,
        }
    }
}

/// PPIs and SPIs, whose INTIDs have 13 bits.
fn linkable(physical: IntId) -> Result<WiredIndex, LinkError> {
    let index = WiredIndex::of(physical).filter(|_| physical.class() != IntIdClass::Sgi);
    index.ok_or(LinkError::NotPhysical(physical))
}
