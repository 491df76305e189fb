//! A wired interrupt (SGI, PPI or SPI), and the pure functions that define its state transitions
//! (IHI 0069 §4.1). An interrupt's whole state is in one atomic word, so every transition starts
//! from a consistent value.

use crate::config::MAX_CPUS;
use crate::sync::{AtomicU64, Ordering::SeqCst};
use crate::wired::index::WiredIndex;
use bitfield_struct::bitfield;
use gic_arch::{IntId, Priority};
use msi_types::explain::Group;
use msi_types::{Cpu, Level};

/// State of one interrupt at the distributor or a redistributor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct InterruptWord {
    /// Pending latch: set by an edge, a message or software; cleared by an acknowledgment.
    pub(crate) latch: bool,
    /// The input's level.
    pub(crate) line: bool,
    /// The level to which messages drive a level-sensitive interrupt (`GICD_SETSPI_NSR`).
    pub(crate) message: bool,
    /// Edge-triggered if set, level-sensitive if clear.
    pub(crate) edge: bool,
    pub(crate) enabled: bool,
    pub(crate) active: bool,
    /// Group 1; with two security states, Non-secure Group 1.
    pub(crate) group1: bool,
    /// Any participating PE may take the interrupt (`GICD_IROUTER.IRM`).
    pub(crate) any: bool,
    /// The priority as the hardware stores it, independent of the security view.
    pub(crate) priority_value: u8,
    /// Index of the target vCPU, or [`NOWHERE`](Self::NOWHERE).
    #[bits(10)]
    pub(crate) target_index: u16,
    /// The interrupt is in a list register of the [`taker`](Self::taker). The model doesn't observe
    /// state changes in a list register until the vCPU folds it.
    pub(crate) listed: bool,
    /// The pending latch was moved to the list register.
    pub(crate) lent: bool,
    /// The guest cleared the active state by a register write while the interrupt was in a list
    /// register.
    pub(crate) forced_inactive: bool,
    /// The guest set the active state by a register write while the interrupt was in a list
    /// register.
    pub(crate) forced_active: bool,
    /// One more than the index of the vCPU that took the interrupt into a list register or
    /// acknowledged it, or 0 if that vCPU is unknown.
    #[bits(10)]
    taker_code: u16,
    /// One more than the index of the linked physical interrupt, or 0 if the interrupt is not
    /// linked.
    #[bits(12)]
    link_code: u16,
    /// The physical interrupt is active on behalf of this interrupt. While this interrupt is in a
    /// list register whose `HW` bit is set, that bit records it instead.
    pub(crate) physical_active: bool,
    /// The interrupt was made active by an acknowledgment, not by a register write.
    pub(crate) was_acknowledged: bool,
    /// Priority at which the interrupt was acknowledged.
    pub(crate) running_priority: u8,
    #[bits(2)]
    __: u8,
}

impl InterruptWord {
    /// Target index for an interrupt whose route has no target PE.
    pub(crate) const NOWHERE: u16 = (1 << 10) - 1;

    /// Returns the interrupt's group.
    pub(crate) const fn group(self) -> Group {
        if self.group1() { Group::One } else { Group::Zero }
    }

    /// Returns the [`target_index`](Self::target_index) of a vCPU.
    pub(super) fn index_of(cpu: Cpu) -> u16 {
        u16::try_from(cpu.get()).unwrap_or(Self::NOWHERE)
    }

    pub(crate) const fn priority(self) -> Priority {
        Priority::new(self.priority_value())
    }

    /// Returns the current target vCPU.
    pub(crate) const fn target(self) -> Option<Cpu> {
        match self.target_index() {
            Self::NOWHERE => None,
            index => Some(Cpu::new(index as u32)),
        }
    }

    /// Returns the vCPU at which the interrupt is in a list register or active, if that vCPU is
    /// known.
    pub(crate) fn taker(self) -> Option<Cpu> {
        self.taker_code().checked_sub(1).map(|index| Cpu::new(index.into()))
    }

    /// Returns the word with this vCPU as the taker.
    pub(crate) fn with_taker(self, cpu: Cpu) -> Self {
        self.with_taker_code(u16::try_from(cpu.get() + 1).unwrap_or(0))
    }

    /// Returns the physical interrupt to which the interrupt is linked.
    pub(crate) fn physical(self) -> Option<IntId> {
        let index = self.link_code().checked_sub(1)?;
        WiredIndex::new(index.into()).map(WiredIndex::intid)
    }

    /// Returns the word with this link, or without a link for `None`, and with no physical
    /// interrupt active on its behalf.
    pub(crate) fn linked(self, physical: Option<WiredIndex>) -> Self {
        let code = physical.and_then(|index| u16::try_from(index.get() + 1).ok());
        self.with_physical_active(false).with_link(code.unwrap_or(0))
    }

    /// Returns the word with the link of `other`.
    pub(crate) const fn linked_as(self, other: Self) -> Self {
        self.with_link(other.link_code())
    }

    /// Returns the word with a link. The line of a linked interrupt is low until the physical
    /// interrupt fires.
    const fn with_link(self, code: u16) -> Self {
        self.with_line(self.line() && code == 0).with_link_code(code)
    }

    const fn is_linked(self) -> bool {
        self.link_code() != 0
    }

    /// Returns the word after its physical interrupt has been deactivated, or once a list register
    /// will deactivate it. If the physical input is still high at the deactivation, the physical
    /// interrupt fires again; until the hypervisor reports this, the line counts as low. This also
    /// applies to an edge-triggered interrupt: a line that stayed high would keep the interrupt
    /// pending once the guest makes it level-sensitive, and no deactivation would sample it again.
    pub(crate) const fn let_go(self) -> Self {
        self.with_line(self.line() && !self.physical_active()).with_physical_active(false)
    }

    /// Releases the physical interrupt if the interrupt is neither pending nor active. Otherwise,
    /// the physical interrupt could never fire again.
    pub(crate) const fn released(self) -> Self {
        if self.pending() || self.active() || self.listed() { self } else { self.let_go() }
    }

    /// Returns `true` if the interrupt is pending, as `ISPENDR` reads it. An interrupt that is
    /// pending in a list register counts as pending until the list register is folded.
    pub(crate) const fn pending(self) -> bool {
        self.latch() || self.lent() || (!self.edge() && (self.line() || self.message()))
    }

    /// Returns `true` if `ISPENDR` may read the interrupt as pending.
    pub(crate) const fn may_read_pending(self) -> bool {
        const ANY: InterruptWord = InterruptWord::new()
            .with_latch(true)
            .with_lent(true)
            .with_line(true)
            .with_message(true)
            .with_physical_active(true);
        self.into_bits() & ANY.into_bits() != 0
    }

    /// Returns a word in which each flag is set that is set in one of the words.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self::from_bits(self.into_bits() | other.into_bits())
    }

    /// Returns `true` if the interrupt is pending and its own state permits signaling. The target
    /// PE also checks groups, masks and running priorities.
    pub(crate) const fn ready(self) -> bool {
        self.pending() && self.enabled() && !self.active()
    }

    /// Returns `true` if setting the latch makes the interrupt [ready](Self::ready) for a vCPU that
    /// takes this group, and changes nothing in a list register.
    pub(crate) const fn latches(self, group: Group) -> bool {
        const READY: InterruptWord = InterruptWord::new().with_enabled(true);
        const ALL: InterruptWord = READY.with_active(true).with_listed(true).with_group1(true);
        let expected = READY.with_group1(matches!(group, Group::One));
        self.into_bits() & ALL.into_bits() == expected.into_bits()
    }

    /// Returns `true` if the interrupt is ready at this vCPU and not in a list register.
    pub(crate) fn ready_at(self, cpu: Cpu) -> bool {
        self.ready() && !self.listed() && self.target() == Some(cpu)
    }

    /// Returns `true` if the interrupt is pending because messages drive its level high.
    pub(crate) const fn is_held_by_message(self) -> bool {
        self.message() && !self.edge()
    }

    /// Returns `true` if the interrupt isn't in a list register, and is pending because a physical
    /// input is high. The level may have fallen since the physical interrupt was acknowledged,
    /// because the hypervisor isn't notified while the physical interrupt is active.
    pub(crate) const fn is_held_by_input(self) -> bool {
        self.physical_active() && self.line() && !self.edge() && !self.listed()
    }

    /// Returns `true` if the interrupt isn't in a list register and was acknowledged, and its
    /// physical interrupt is active. The line then counts as low until the physical interrupt fires
    /// again, regardless of the level of its input.
    pub(crate) const fn is_past_its_input(self) -> bool {
        self.active() && self.physical_active() && !self.edge() && !self.listed()
    }

    /// Returns an active interrupt's rank in the order in which EOIs end active interrupts. Guests
    /// first end the interrupt that they acknowledged last, i.e. the interrupt with the highest
    /// running priority. Interrupts that a register write made active come last.
    pub(crate) const fn end_rank(self) -> (bool, u8) {
        if self.was_acknowledged() {
            (false, self.running_priority())
        } else {
            (true, self.priority_value())
        }
    }

    /// Returns `true` if the interrupt is active at this vCPU and not in a list register. An
    /// interrupt is active at the vCPU that took it or, if that vCPU is not known, at its target.
    pub(crate) fn active_at(self, cpu: Cpu) -> bool {
        self.active() && !self.listed() && self.taker().or(self.target()) == Some(cpu)
    }

    /// Returns the word after the input is driven to a level. For a linked interrupt, each call
    /// with a high level means that the physical interrupt was acknowledged.
    pub(crate) fn driven(self, level: Level) -> Self {
        let high = level == Level::High;
        let rising = high && (!self.line() || self.is_linked());
        self.with_line(high)
            .with_latch(self.latch() || (self.edge() && rising))
            .with_physical_active(self.physical_active() || (self.is_linked() && high))
    }

    /// Returns the word after a message sets the interrupt.
    pub(crate) const fn message_set(self) -> Self {
        if self.edge() { self.with_latch(true) } else { self.with_message(true) }
    }

    /// Returns the word after a message clears the interrupt.
    pub(crate) const fn message_cleared(self) -> Self {
        self.unlatched().with_message(false)
    }

    /// Returns the word after software clears the pending state. A high level may keep the
    /// interrupt pending.
    pub(crate) const fn unlatched(self) -> Self {
        self.with_latch(false).with_lent(false)
    }

    /// Returns the word after software makes the interrupt active.
    pub(crate) const fn activated(self) -> Self {
        self.with_active(true).with_forced_active(self.listed()).with_forced_inactive(false)
    }

    /// Returns the word after the interrupt is deactivated.
    pub(crate) const fn deactivated(self) -> Self {
        let inactive =
            self.with_active(false).with_forced_inactive(self.listed()).with_forced_active(false);
        if self.listed() { inactive } else { inactive.inactive().let_go() }
    }

    /// Returns `true` if the deactivation of this active interrupt only changes its word: it is
    /// edge-triggered, not pending, not 1-of-N, not listed, and holds no physical interrupt.
    pub(crate) const fn ends_silently(self) -> bool {
        const OTHERS: InterruptWord = InterruptWord::new()
            .with_latch(true)
            .with_lent(true)
            .with_any(true)
            .with_listed(true)
            .with_physical_active(true);
        self.edge() && self.into_bits() & OTHERS.into_bits() == 0
    }

    /// Returns the word with the active state cleared and no taker.
    pub(crate) const fn inactive(self) -> Self {
        self.with_active(false).with_taker_code(0).with_was_acknowledged(false)
    }

    /// Returns the word after a pulse on the input. The level of the input does not change.
    pub(crate) const fn pulsed(self) -> Self {
        self.with_latch(self.latch() || self.edge())
            .with_physical_active(self.physical_active() || self.is_linked())
    }

    /// Returns the word after a PE acknowledges the interrupt. If the linked physical interrupt is
    /// active, the hypervisor doesn't report the input's level again before the interrupt is
    /// deactivated.
    pub(crate) const fn acknowledged(self) -> Self {
        self.let_go()
            .with_physical_active(self.physical_active())
            .with_latch(false)
            .with_active(true)
            .running_at(self.priority_value())
    }

    /// Returns the word with the priority at which a guest acknowledged the interrupt.
    pub(crate) const fn running_at(self, priority: u8) -> Self {
        self.with_was_acknowledged(true).with_running_priority(priority)
    }
}

const _: () = assert!(MAX_CPUS < InterruptWord::NOWHERE as usize, "each vCPU has an index");

/// An interrupt's atomic word. Every write is a read-modify-write, so each change applies to the
/// value from which it was derived, and everything that a device writes before it signals the
/// interrupt is visible to the vCPU that acknowledges the interrupt.
#[derive(Debug)]
pub(crate) struct Interrupt(AtomicU64);

impl Interrupt {
    pub(crate) const fn new(state: InterruptWord) -> Self {
        Self(AtomicU64::new(state.into_bits()))
    }

    pub(crate) fn state(&self) -> InterruptWord {
        InterruptWord::from_bits(self.0.load(SeqCst))
    }

    /// Replaces the state with the result of `change`. Returns the old and the new state. The word
    /// is written even if the state does not change, so that the acknowledging vCPU also observes
    /// the writes of a device whose signal was coalesced.
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

    /// Replaces the state if it is still `expected`. Returns `true` on success.
    #[inline]
    pub(crate) fn replace(&self, expected: InterruptWord, new: InterruptWord) -> bool {
        self.0.compare_exchange(expected.into_bits(), new.into_bits(), SeqCst, SeqCst).is_ok()
    }

    /// Replaces the state like [`update`](Self::update), or returns `None` if `change` does.
    #[inline]
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
    fn a_line_that_stays_high_signals_one_edge() {
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
}
