//! Virtual interrupts that are linked to physical ones. An interrupt *holds* its physical interrupt
//! from the moment when that was taken and handed to the guest until the guest deactivates it. The
//! hardware does that with a list register; anything else is done here.
//!
//! Every change by which an interrupt ceases to hold is one update of its word, and who made it
//! deactivates the physical interrupt. In the other order, one that fires again could be held up.

use super::index::WiredIndex;
use super::interrupt::{Interrupt, InterruptWord};
use crate::sync::set_once::SetOnce;
use alloc::sync::Arc;
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

/// The hypervisor's side of the links, once there is one. Each interrupt's word has its own link.
pub(super) struct PhysicalLinks(SetOnce<Arc<dyn PhysicalInterrupts>>);

impl PhysicalLinks {
    pub(super) const fn new() -> Self {
        Self(SetOnce::new())
    }

    /// Sets the hypervisor's side. Must be called once.
    pub(super) fn serve(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), Arc<dyn PhysicalInterrupts>> {
        self.0.set(physical)
    }

    /// Links the interrupt of a line to a physical one, or to none. Returns its state before and
    /// after.
    pub(super) fn link(
        &self,
        line: Line,
        interrupt: &Interrupt,
        physical: Option<IntId>,
    ) -> Result<(InterruptWord, InterruptWord), LinkError> {
        let physical = physical.map(linkable).transpose()?;
        if self.0.get().is_none() {
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
        Ok((old, new))
    }

    /// A change of an interrupt's word was made: if it held its physical interrupt and does no
    /// more, that is deactivated.
    pub(super) fn released(&self, line: Line, old: InterruptWord, new: InterruptWord) {
        if let Some(physical) =
            old.physical().filter(|_| old.physical_active() && !new.physical_active())
        {
            self.deactivate(line, physical);
        }
    }

    pub(super) fn deactivate(&self, line: Line, physical: IntId) {
        if let Some(served) = self.0.get() {
            served.deactivate(line, physical);
        }
    }

    /// Returns the state of an interrupt that is to be signalled to `cpu`. Must be called on that
    /// vCPU's thread. If a physical input holds the interrupt pending, the input is sampled first.
    #[inline]
    pub(super) fn state_to_signal(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        interrupt: &Interrupt,
    ) -> InterruptWord {
        let state = interrupt.state();
        if state.is_held_by_input() && state.ready_at(cpu) {
            self.sample_input(index.line(cpu), interrupt, state)
        } else {
            state
        }
    }

    /// Returns true if the interrupt of a line, which has this state, is pending as `ISPENDR` reads
    /// it. A level-sensitive interrupt is pending while its input is asserted or its latch is set
    /// (IHI 0069, `GICD_ISPENDR<n>`).
    pub(super) fn reads_pending(
        &self,
        line: Line,
        interrupt: &Interrupt,
        state: InterruptWord,
    ) -> bool {
        if state.is_held_by_input() {
            self.sample_input(line, interrupt, state).pending()
        } else if state.is_past_its_input() {
            let level = self.level(line, state.physical());
            state.pending() || level == Level::High
        } else {
            state.pending()
        }
    }

    /// Lowers the line of an interrupt in this state if its physical input has fallen, and returns
    /// its new state. The physical interrupt is deactivated, so that it fires again if the input
    /// has risen since.
    #[cold]
    fn sample_input(
        &self,
        line: Line,
        interrupt: &Interrupt,
        state: InterruptWord,
    ) -> InterruptWord {
        if self.level(line, state.physical()) == Level::High {
            return state;
        }
        let lower = |now| (now == state).then(|| state.driven(Level::Low).released());
        match interrupt.try_update(lower) {
            Some((old, new)) => {
                self.released(line, old, new);
                new
            }
            None => interrupt.state(),
        }
    }

    /// The level of the physical interrupt that a line is linked to; low if it is not linked.
    pub(super) fn level(&self, line: Line, physical: Option<IntId>) -> Level {
        match (physical, self.0.get()) {
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
