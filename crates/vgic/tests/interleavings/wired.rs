//! One SPI of one vCPU, with the sources of list registers and links. What `wired.rs` does beside
//! them is repeated in a few lines.
#![expect(clippy::unused_self, reason = "the sources call it so")]

#[expect(unreachable_pub, reason = "the source is a library's")]
#[path = "../../src/wired/links.rs"]
mod links;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/wired/lists.rs"]
mod lists;

use crate::candidates::Candidates;
use crate::interrupt::{Interrupt, InterruptWord};
use crate::set_once::SetOnce;
use crate::wakeup::VcpuWakeup;
use crate::wired_index::WiredIndex;
use alloc::sync::Arc;
use gic_arch::IntId;
pub(crate) use links::PhysicalInterrupts;
pub(crate) use lists::{Filled, Forwarding};
use msi_types::{Cpu, Kick, Line};

pub(crate) const CPU: Cpu = Cpu::new(0);
pub(crate) const LINE: Line = Line::Spi(40);

/// The SPI's.
pub(crate) fn index() -> WiredIndex {
    WiredIndex::of(IntId::new(40)).unwrap()
}

struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

/// Nobody waits for an exit here.
struct Awaited;

impl Awaited {
    const fn ask(&self) {}
}

struct Private {
    candidates: Candidates,
    awaited: Awaited,
}

pub(crate) struct Wired {
    interrupt: Interrupt,
    private: Private,
    awaited: Awaited,
    wakeup: VcpuWakeup,
    physical: SetOnce<Arc<dyn PhysicalInterrupts>>,
}

const fn line_of(_: Cpu, _: WiredIndex) -> Line {
    LINE
}

impl Wired {
    pub(crate) fn new(state: InterruptWord) -> Self {
        Self {
            interrupt: Interrupt::new(state),
            private: Private { candidates: Candidates::new(), awaited: Awaited },
            awaited: Awaited,
            wakeup: VcpuWakeup::new(1, Arc::new(NoKick)).unwrap(),
            physical: SetOnce::new(),
        }
    }

    pub(crate) fn state(&self, _: Cpu, _: WiredIndex) -> InterruptWord {
        self.interrupt.state()
    }

    fn interrupt(&self, _: Cpu, index: WiredIndex) -> Option<&Interrupt> {
        (index == self::index()).then_some(&self.interrupt)
    }

    fn private(&self, cpu: Cpu) -> Option<&Private> {
        (cpu == CPU).then_some(&self.private)
    }

    fn input(&self, line: Line) -> Option<(Cpu, WiredIndex)> {
        (line == LINE).then_some((CPU, index()))
    }

    const fn aim(&self, _: InterruptWord, new: InterruptWord) -> InterruptWord {
        new
    }

    const fn is_visible(&self, _: InterruptWord) -> bool {
        true
    }

    const fn tell_observer_of(&self, _: Cpu, _: IntId, _: InterruptWord) {}

    fn settle(&self, index: WiredIndex, state: InterruptWord) {
        if state.ready_at(CPU) {
            self.private.candidates.set(index);
            self.wakeup.kick(CPU);
        }
    }

    fn try_change(
        &self,
        cpu: Cpu,
        intid: IntId,
        change: impl Fn(InterruptWord) -> Option<InterruptWord>,
    ) -> Option<(InterruptWord, InterruptWord)> {
        let index = WiredIndex::of(intid)?;
        let (old, new) = self.interrupt(cpu, index)?.try_update(change)?;
        self.released_at(cpu, index, old, new);
        self.settle(index, new);
        self.refresh_listed(old, new);
        Some((old, new))
    }

    /// Reads the link to the physical interrupt before the update instead of with it.
    pub(crate) fn unlink_in_two_steps(&self) {
        let before = self.interrupt.state();
        let (_, new) = self.interrupt.update(|state| state.linked(None));
        self.released(LINE, before, new);
    }

    /// An edge arrives.
    pub(crate) fn pulse(&self) {
        self.try_change(CPU, index().intid(), |state| Some(state.pulsed()));
    }

    /// The guest clears the active state by a register.
    pub(crate) fn deactivate(&self) {
        let done = self
            .interrupt
            .try_update(|state| (state.active() || state.listed()).then(|| state.deactivated()));
        let Some((old, new)) = done else { return };
        self.released_at(CPU, index(), old, new);
        self.settle(index(), self.interrupt.state());
        self.recall_changed(index().intid(), old, new);
    }

    /// The vCPU enters, with the interrupt in its list register if it can be.
    pub(crate) fn fill(&self) -> Option<Filled> {
        self.wakeup.leave(CPU);
        self.wakeup.fills(CPU);
        let mut seen = None;
        self.listable(CPU, |_, state| seen = Some(state));
        let active = || Some(self.interrupt.state()).filter(|state| state.active_at(CPU));
        self.list(CPU, index(), seen.or_else(active)?, Forwarding::Enabled)
    }

    /// The vCPU has exited, and folded.
    pub(crate) fn exited(&self) {
        self.wakeup.returned(CPU);
        self.wakeup.folded(CPU);
    }
}
