//! Links between virtual and physical interrupts. A virtual interrupt *holds* its physical
//! interrupt from the time the physical interrupt is acknowledged and handed to the guest until the
//! guest deactivates it. If the virtual interrupt is in a list register with `HW`, the hardware
//! deactivates the physical interrupt; this module handles all other cases.
//!
//! A virtual interrupt releases its physical interrupt by a single update of its word. The thread
//! that made the change then deactivates the physical interrupt. In the opposite order, the
//! physical interrupt could fire again before the update, and the update would then release the
//! physical interrupt without deactivating it.

use super::index::{WiredIndex, line_of};
use super::interrupt::{Interrupt, InterruptWord};
use super::interrupt_table::InterruptTable;
use crate::sync::set_once::SetOnce;
use alloc::sync::Arc;
use gic_arch::{IntId, IntIdClass};
use msi_types::{Cpu, Level, Line};

/// The hypervisor's access to the physical interrupts to which virtual interrupts are
/// [linked](crate::Vgic::link). The model doesn't hold locks during calls.
pub trait PhysicalInterrupts: Send + Sync {
    /// Returns the current level of the physical input. `line` is level-sensitive and its physical
    /// interrupt is active, so the hypervisor is not notified when the level falls.
    ///
    /// The model calls this method on the vCPU's thread before the interrupt is signaled, and after
    /// the guest has exited without acknowledging the interrupt. It also calls this method on any
    /// thread that forwards a guest's read of `ISPENDR` or `ICPENDR`. For a PPI of a vCPU that is
    /// not loaded on a CPU, implementations must return [`Level::High`]: the line then keeps its
    /// state until the vCPU's own thread calls this method.
    fn level(&self, line: Line, physical: IntId) -> Level;

    /// Deactivates the physical interrupt, so that it may fire again. A PPI must be deactivated on
    /// the CPU on which the vCPU of `line` is loaded, if any: see
    /// [`Vgic::is_physical_active`](crate::Vgic::is_physical_active).
    ///
    /// Context: any.
    fn deactivate(&self, line: Line, physical: IntId);
}

/// Error from linking a virtual interrupt to a physical interrupt. The error indicates a bug in the
/// hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The machine has no such line.
    #[error("cannot link {0:?}: the machine has no such line")]
    NoSuchLine(Line),
    /// The physical interrupt is not a PPI or SPI. Only PPIs and SPIs have an active state that a
    /// list register can refer to.
    #[error("INTID {} is not a PPI or SPI, so no interrupt can be linked to it", .0.get())]
    NotPhysical(IntId),
    /// [`Vgic::serve_physical`](crate::Vgic::serve_physical) has not been called yet.
    #[error("cannot link before Vgic::serve_physical is called")]
    NotServed,
}

/// The hypervisor's access to physical interrupts, once it is registered. The links themselves are
/// stored in the interrupts' words.
pub(super) struct PhysicalLinks(SetOnce<Arc<dyn PhysicalInterrupts>>);

impl PhysicalLinks {
    pub(super) const fn new() -> Self {
        Self(SetOnce::new())
    }

    /// Sets the hypervisor's access to physical interrupts. Must be called at most once.
    pub(super) fn serve(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), Arc<dyn PhysicalInterrupts>> {
        self.0.set(physical)
    }

    /// Links the interrupt of a line to a physical interrupt, or removes the link. Returns the
    /// interrupt's state before and after.
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
        self.released(|| line, old, new);
        Ok((old, new))
    }

    /// Deactivates the physical interrupt if changing the virtual interrupt's word from `old` to
    /// `new` released it.
    #[inline]
    pub(super) fn released(
        &self,
        line: impl FnOnce() -> Line,
        old: InterruptWord,
        new: InterruptWord,
    ) {
        if old.physical_active()
            && !new.physical_active()
            && let Some(physical) = old.physical()
        {
            self.deactivate(line(), physical);
        }
    }

    pub(super) fn deactivate(&self, line: Line, physical: IntId) {
        if let Some(served) = self.0.get() {
            served.deactivate(line, physical);
        }
    }

    /// Returns the state of an interrupt that is about to be signaled to `cpu`. Must be called on
    /// that vCPU's thread. If the interrupt is pending because of a physical input, samples the
    /// input first.
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

    /// Returns `true` if a line's interrupt in this state is pending, as `ISPENDR` reads it. A
    /// level-sensitive interrupt is pending while its input is asserted or its latch is set (IHI
    /// 0069, `GICD_ISPENDR<n>`).
    fn reads_pending(
        &self,
        line: impl FnOnce() -> Line,
        interrupt: &Interrupt,
        state: InterruptWord,
    ) -> bool {
        if state.is_held_by_input() {
            self.sample_input(line(), interrupt, state).pending()
        } else if state.is_past_its_input() {
            let level = self.level(line(), state.physical());
            state.pending() || level == Level::High
        } else {
            state.pending()
        }
    }

    /// Returns the pending interrupts among 32, starting with `first`, as `ISPENDR` reads them.
    pub(super) fn pending_bits(&self, interrupts: &InterruptTable, cpu: Cpu, first: IntId) -> u32 {
        let Some(words) = interrupts.words(cpu, first) else { return 0 };
        let all = words.iter().fold(InterruptWord::new(), |all, word| all.union(word.state()));
        if !all.may_read_pending() {
            return 0;
        }
        let is_pending = |intid: u32, interrupt: &Interrupt| {
            let state = interrupt.state();
            let line = || line_of(IntId::new(intid), cpu);
            interrupts.is_visible(state) && self.reads_pending(line, interrupt, state)
        };
        let pending = (0..).zip(words).map(|(number, interrupt)| {
            u32::from(is_pending(first.get() + number, interrupt)) << number
        });
        pending.fold(0, |bits, bit| bits | bit)
    }

    /// If the physical input of an interrupt in this state has fallen, lowers the line. Returns the
    /// interrupt's new state. Also deactivates the physical interrupt, so that it fires again if
    /// the input has risen since.
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
                self.released(|| line, old, new);
                new
            }
            None => interrupt.state(),
        }
    }

    /// Returns the level of a line's physical interrupt, or low if the line isn't linked.
    pub(super) fn level(&self, line: Line, physical: Option<IntId>) -> Level {
        match (physical, self.0.get()) {
            (Some(physical), Some(served)) => served.level(line, physical),
            _ => Level::Low,
        }
    }
}

/// Returns the index of a physical PPI or SPI. The INTID fits in the list register's 13-bit field.
fn linkable(physical: IntId) -> Result<WiredIndex, LinkError> {
    let index = WiredIndex::of(physical).filter(|_| physical.class() != IntIdClass::Sgi);
    index.ok_or(LinkError::NotPhysical(physical))
}
