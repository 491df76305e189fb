//! One wired interrupt (SGI, PPI, SPI), and the pure rules of its state (IHI 0069 §4.1). The whole
//! state is in one atomic word, so that every decision about it is made on one consistent value.

use crate::config::MAX_CPUS;
use crate::sync::{AtomicU64, Ordering::SeqCst};
use crate::wired::index::WiredIndex;
use bitfield_struct::bitfield;
use gic_arch::{IntId, Priority};
use msi_types::{Cpu, Level};

/// A group of interrupts: Group 0 is signalled as FIQ, Group 1 as IRQ. Of two security states, the
/// Non-secure side has Group 1 only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// Group 0.
    Zero,
    /// Group 1, Non-secure Group 1.
    One,
}

impl Group {
    /// The group that an interrupt is in.
    pub(crate) const fn of(state: InterruptWord) -> Self {
        if state.group1() { Self::One } else { Self::Zero }
    }

    /// Index into arrays of two.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// State of one interrupt at the distributor or a redistributor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct InterruptWord {
    /// Pending by an edge, a message or software; cleared by acknowledging.
    pub(crate) latch: bool,
    /// The level of the input.
    pub(crate) line: bool,
    /// The level that messages drive (`GICD_SETSPI_NSR`) where the interrupt is level-sensitive.
    pub(crate) message: bool,
    /// Edge-triggered, else level-sensitive.
    pub(crate) edge: bool,
    pub(crate) enabled: bool,
    pub(crate) active: bool,
    /// Group 1; of two security states, the Non-secure one.
    pub(crate) group1: bool,
    /// Goes to any participating PE (`GICD_IROUTER.IRM`).
    pub(crate) any: bool,
    /// The priority as the hardware has it, whatever the view.
    pub(crate) priority_value: u8,
    /// Index of the target vCPU, or [`NOWHERE`](Self::NOWHERE).
    #[bits(10)]
    pub(crate) target_index: u16,
    /// In a list register of the [`taker`](State::taker): what happens there is not known here
    /// until it is folded.
    pub(crate) listed: bool,
    /// The latch is in the list register.
    pub(crate) lent: bool,
    /// While it was listed, the guest cleared the active state, wherever it was.
    pub(crate) forced_inactive: bool,
    /// While it was listed, the guest set the active state.
    pub(crate) forced_active: bool,
    /// While it is listed or active: one more than the vCPU that took it, 0 if none is known.
    #[bits(10)]
    taker_code: u16,
    /// One more than the index of the physical interrupt that it is linked to, 0 if it is not.
    #[bits(12)]
    link_code: u16,
    /// The physical interrupt is active on its behalf. In a list register, `HW` says so instead.
    pub(crate) physical_active: bool,
    /// An acknowledgement made it active, not a register write.
    pub(crate) was_acknowledged: bool,
    /// The priority at which it was acknowledged.
    pub(crate) running_priority: u8,
    #[bits(2)]
    __: u8,
}

impl InterruptWord {
    /// The target of an interrupt whose route names no PE.
    pub(crate) const NOWHERE: u16 = (1 << 10) - 1;

    /// The [`target_index`](Self::target_index) of a vCPU.
    pub(super) fn index_of(cpu: Cpu) -> u16 {
        u16::try_from(cpu.get()).unwrap_or(Self::NOWHERE)
    }

    pub(crate) const fn priority(self) -> Priority {
        Priority::new(self.priority_value())
    }

    /// The vCPU that it goes to now.
    pub(crate) const fn target(self) -> Option<Cpu> {
        match self.target_index() {
            Self::NOWHERE => None,
            index => Some(Cpu::new(index as u32)),
        }
    }

    /// The vCPU that listed it or has it active, where that is known.
    pub(crate) fn taker(self) -> Option<Cpu> {
        self.taker_code().checked_sub(1).map(|index| Cpu::new(index.into()))
    }

    /// With this vCPU as the taker.
    pub(crate) fn with_taker(self, cpu: Cpu) -> Self {
        self.with_taker_code(u16::try_from(cpu.get() + 1).unwrap_or(0))
    }

    /// The physical interrupt that it is linked to.
    pub(crate) fn physical(self) -> Option<IntId> {
        let index = self.link_code().checked_sub(1)?;
        WiredIndex::new(index.into()).map(WiredIndex::intid)
    }

    /// Linked to this physical interrupt, or to none. The old one is not active on its behalf.
    pub(crate) fn linked(self, physical: Option<WiredIndex>) -> Self {
        let code = physical.and_then(|index| u16::try_from(index.get() + 1).ok());
        self.with_link_code(code.unwrap_or(0)).with_physical_active(false)
    }

    /// With the link of `other`.
    pub(crate) const fn linked_as(self, other: Self) -> Self {
        self.with_link_code(other.link_code())
    }

    const fn is_linked(self) -> bool {
        self.link_code() != 0
    }

    /// The physical interrupt is deactivated, or deactivates with a list register. If its input is
    /// still high then, it fires again: until that is heard, the line counts as low.
    pub(crate) const fn let_go(self) -> Self {
        let consumed = self.physical_active() && !self.edge();
        self.with_line(self.line() && !consumed).with_physical_active(false)
    }

    /// An interrupt that is neither pending nor active holds no physical one, which could not fire
    /// again.
    pub(crate) const fn released(self) -> Self {
        if self.pending() || self.active() || self.listed() {
            self
        } else {
            self.with_physical_active(false)
        }
    }

    /// Pending, as `ISPENDR` reads it. What is in a list register counts until it is folded.
    pub(crate) const fn pending(self) -> bool {
        self.latch() || self.lent() || (!self.edge() && (self.line() || self.message()))
    }

    /// Pending and to be signalled as far as the interrupt's own state goes. Groups, masks and
    /// running priorities are the target's affair.
    pub(crate) const fn ready(self) -> bool {
        self.pending() && self.enabled() && !self.active()
    }

    /// Ready at this vCPU, and in no list register.
    pub(crate) fn ready_at(self, cpu: Cpu) -> bool {
        self.ready() && !self.listed() && self.target() == Some(cpu)
    }

    /// Returns true if the interrupt is in no list register and pending by the level of a physical
    /// input. The level may have fallen since the physical interrupt was taken: the hypervisor is
    /// not notified of that while the physical interrupt is active.
    pub(crate) const fn is_held_by_input(self) -> bool {
        self.physical_active() && self.line() && !self.edge() && !self.listed()
    }

    /// Returns true if the interrupt is in no list register and was acknowledged, and its physical
    /// interrupt is active. The line then counts as low until the physical interrupt fires again,
    /// whatever the level of its input.
    pub(crate) const fn is_past_its_input(self) -> bool {
        self.active() && self.physical_active() && !self.edge() && !self.listed()
    }

    /// Returns the rank of an active interrupt in the order in which EOIs end them. A guest ends
    /// the interrupt that it acknowledged last, which has the most urgent running priority.
    /// Interrupts that a register write made active come last.
    pub(crate) const fn end_rank(self) -> (bool, u8) {
        if self.was_acknowledged() {
            (false, self.running_priority())
        } else {
            (true, self.priority_value())
        }
    }

    /// Active at this vCPU: it took it, or it is the target of what nobody took. In no list
    /// register.
    pub(crate) fn active_at(self, cpu: Cpu) -> bool {
        self.active() && !self.listed() && self.taker().or(self.target()) == Some(cpu)
    }

    /// The input changed, or was driven again. Of a linked interrupt, a high level says that the
    /// physical interrupt was taken, each time.
    pub(crate) fn driven(self, level: Level) -> Self {
        let high = level == Level::High;
        let rising = high && (!self.line() || self.is_linked());
        self.with_line(high)
            .with_latch(self.latch() || (self.edge() && rising))
            .with_physical_active(self.physical_active() || (self.is_linked() && high))
    }

    /// A message asks for it.
    pub(crate) const fn message_set(self) -> Self {
        if self.edge() { self.with_latch(true) } else { self.with_message(true) }
    }

    /// A message takes it back.
    pub(crate) const fn message_cleared(self) -> Self {
        self.unlatched().with_message(false)
    }

    /// Software takes the pending state back, as far as no level holds it.
    pub(crate) const fn unlatched(self) -> Self {
        self.with_latch(false).with_lent(false)
    }

    /// Software makes it active.
    pub(crate) const fn activated(self) -> Self {
        self.with_active(true).with_forced_active(self.listed()).with_forced_inactive(false)
    }

    /// It is active no more.
    pub(crate) const fn deactivated(self) -> Self {
        let inactive =
            self.with_active(false).with_forced_inactive(self.listed()).with_forced_active(false);
        if self.listed() { inactive } else { inactive.inactive().let_go() }
    }

    /// It is not active, wherever it was.
    pub(crate) const fn inactive(self) -> Self {
        self.with_active(false).with_taker_code(0).with_was_acknowledged(false)
    }

    /// A pulse on the input. The level stays as it is driven.
    pub(crate) const fn pulsed(self) -> Self {
        self.with_latch(self.latch() || self.edge())
            .with_physical_active(self.physical_active() || self.is_linked())
    }

    /// Records that a PE acknowledges the interrupt. If its physical interrupt is active, the level
    /// is reported again only after the end.
    pub(crate) const fn acknowledged(self) -> Self {
        self.let_go()
            .with_physical_active(self.physical_active())
            .with_latch(false)
            .with_active(true)
            .running_at(self.priority_value())
    }

    /// Records that a guest acknowledged the interrupt at this priority.
    pub(crate) const fn running_at(self, priority: u8) -> Self {
        self.with_was_acknowledged(true).with_running_priority(priority)
    }
}

const _: () = assert!(MAX_CPUS < InterruptWord::NOWHERE as usize, "each vCPU has an index");

/// The word of an interrupt. Every write is a read-modify-write. So each change applies to the
/// value it was decided on. A device's writes before its signal are visible to the vCPU that
/// acknowledges it.
#[derive(Debug)]
pub(crate) struct Interrupt(AtomicU64);

impl Interrupt {
    pub(crate) const fn new(state: InterruptWord) -> Self {
        Self(AtomicU64::new(state.into_bits()))
    }

    pub(crate) fn state(&self) -> InterruptWord {
        InterruptWord::from_bits(self.0.load(SeqCst))
    }

    /// Replaces the state by `change` of it: what it was and what it is. Writes even if nothing
    /// changes: the sender of a coalesced signal must not be overtaken by the acknowledgement.
    pub(crate) fn update(
        &self,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) -> (InterruptWord, InterruptWord) {
        let mut old = self.0.load(SeqCst);
        loop {
            let new = change(InterruptWord::from_bits(old));
            match self.0.compare_exchange_weak(old, new.into_bits(), SeqCst, SeqCst) {
                Ok(_) => return (InterruptWord::from_bits(old), new),
                Err(seen) => old = seen,
            }
        }
    }

    /// As [`update`](Self::update), unless `change` declines; `None` then.
    pub(crate) fn try_update(
        &self,
        change: impl Fn(InterruptWord) -> Option<InterruptWord>,
    ) -> Option<(InterruptWord, InterruptWord)> {
        let mut old = self.0.load(SeqCst);
        loop {
            let new = change(InterruptWord::from_bits(old))?;
            match self.0.compare_exchange_weak(old, new.into_bits(), SeqCst, SeqCst) {
                Ok(_) => return Some((InterruptWord::from_bits(old), new)),
                Err(seen) => old = seen,
            }
        }
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use msi_types::Level;

    const LEVEL: InterruptWord = InterruptWord::new().with_enabled(true);
    const EDGE: InterruptWord = LEVEL.with_edge(true);

    #[test]
    fn a_level_is_pending_while_the_line_is_high() {
        let high = LEVEL.driven(Level::High);
        assert!(high.pending());
        assert!(high.acknowledged().pending(), "active and pending");
        assert!(!high.driven(Level::Low).pending());
    }

    #[test]
    fn an_edge_is_pending_until_acknowledged() {
        let fired = EDGE.driven(Level::High).driven(Level::Low);
        assert!(fired.pending());
        assert!(!fired.acknowledged().pending());
    }

    #[test]
    fn a_line_that_stays_high_is_no_second_edge() {
        let acknowledged = EDGE.driven(Level::High).acknowledged();
        assert!(!acknowledged.driven(Level::High).pending());
        assert!(acknowledged.driven(Level::Low).driven(Level::High).pending());
    }

    #[test]
    fn each_pulse_is_an_edge_whatever_the_line_does() {
        for level in [Level::Low, Level::High] {
            let acknowledged = EDGE.driven(level).acknowledged();
            assert!(acknowledged.pulsed().pending());
            assert_eq!(acknowledged.pulsed().line(), acknowledged.line());
        }
    }

    #[test]
    fn a_level_is_unaffected_by_pulses() {
        for state in [LEVEL, LEVEL.driven(Level::High), LEVEL.driven(Level::High).acknowledged()] {
            assert_eq!(state.pulsed(), state);
        }
    }

    #[test]
    fn an_active_interrupt_is_not_ready() {
        let again = LEVEL.driven(Level::High).acknowledged();
        assert!(!again.ready());
        assert!(again.with_active(false).ready());
    }
}
