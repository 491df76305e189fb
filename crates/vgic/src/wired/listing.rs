//! Wired interrupts in the list registers of vCPUs that are running guest code. While an interrupt
//! is in a list register (`listed`), its word still holds its state, but the pending and active
//! state in the list register may be newer. The vCPU folds the list register into the word when it
//! exits.
//!
//! An interrupt is in at most one list register: an interrupt in a list register of another vCPU
//! must first be folded by that vCPU.

use super::Wired;
use super::candidates::Look;
use super::index::WiredIndex;
use super::interrupt::InterruptWord;
use gic_arch::IntId;
use gic_arch::ich::ListRegister;
use gic_arch::ich::ListRegisterState::{self, Active, Invalid, Pending, PendingActive};
use msi_types::explain::Group;
use msi_types::{Cpu, Level};

const fn is_pending(state: ListRegisterState) -> bool {
    matches!(state, Pending | PendingActive)
}

const fn is_active(state: ListRegisterState) -> bool {
    matches!(state, Active | PendingActive)
}

/// Contents with which a list register was filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filled {
    pub(crate) state: ListRegisterState,
    /// Physical interrupt that the hardware deactivates when the guest deactivates the virtual
    /// interrupt.
    pub(crate) physical: Option<IntId>,
    /// The hardware requests a maintenance interrupt when the guest deactivates the interrupt.
    pub(crate) asks_for_end: bool,
}

/// Contents for an edge-triggered interrupt that is pending and doesn't hold a physical interrupt.
const PENDING: Filled = Filled { state: Pending, physical: None, asks_for_end: false };

impl Filled {
    /// Returns `true` for an edge-triggered interrupt that is pending and doesn't hold a physical
    /// interrupt.
    pub(crate) fn is_plain(self) -> bool {
        self == PENDING
    }
}

/// State bits that are all clear in the common case, i.e. if an edge-triggered interrupt is
/// acknowledged and ended without any other change in between.
const UNUSUAL: InterruptWord = InterruptWord::new()
    .with_active(true)
    .with_any(true)
    .with_forced_active(true)
    .with_forced_inactive(true)
    .with_physical_active(true);

/// Treatment of a group's pending interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forwarding {
    /// The interrupts may be signaled.
    Enabled,
    /// The group is disabled.
    Disabled,
}

impl InterruptWord {
    /// Returns the contents of a list register of `cpu` for the interrupt. `participates` is
    /// `false` if the vCPU doesn't take 1-of-N interrupts; it only matters if the interrupt is
    /// active. The level of a message must be signaled again after the deactivation, like that of a
    /// line, so the list register must not deactivate the physical interrupt without an exit.
    #[inline]
    fn to_list(self, cpu: Cpu, forwarding: Forwarding, participates: bool) -> Filled {
        let pending = self.pending() && self.enabled() && forwarding == Forwarding::Enabled;
        if self.active() {
            return self.active_to_list(pending, cpu, participates);
        }
        let physical =
            self.physical().filter(|_| self.physical_active() && !self.is_held_by_message());
        let asks_for_end = physical.is_none() && !self.edge();
        Filled { state: if pending { Pending } else { Invalid }, physical, asks_for_end }
    }

    /// Returns the contents of a list register for an active interrupt.
    ///
    /// Only an edge-triggered interrupt may be pending and active in a list register, and in two
    /// cases, the pending state stays in the word: if the interrupt holds a physical interrupt,
    /// because the physical distributor then keeps the pending state (IHI 0069, `ICH_LR<n>_EL2`,
    /// State), and if this vCPU may not take the interrupt again, because its target is another
    /// vCPU. A latch or message that waits in the word must be signaled after the deactivation, so
    /// the list register requests a maintenance interrupt, which requires `HW` to be clear. A level
    /// is sampled again at the deactivation.
    #[cold]
    #[inline(never)]
    fn active_to_list(self, pending: bool, cpu: Cpu, participates: bool) -> Filled {
        let stays = self.target() == Some(cpu) && (participates || !self.any());
        if pending && stays && self.edge() && !self.physical_active() {
            return Filled { state: PendingActive, physical: None, asks_for_end: false };
        }
        let waits = self.latch() || self.is_held_by_message();
        let physical = self.physical().filter(|_| self.physical_active() && !waits);
        let asks_for_end = physical.is_none() && (waits || !self.edge());
        Filled { state: Active, physical, asks_for_end }
    }

    /// Returns the word for an interrupt in a list register of `cpu` with these contents.
    fn listed_at(self, cpu: Cpu, filled: Filled) -> Self {
        let lends = is_pending(filled.state) && self.latch();
        let word = if filled.physical.is_some() { self.let_go() } else { self };
        word.with_listed(true).with_taker(cpu).with_lent(lends).with_latch(self.latch() && !lends)
    }

    /// Returns the word after the list register of `cpu`, which was filled as pending, is folded as
    /// inactive. Returns `None` unless the only change was that the guest ended an edge-triggered
    /// interrupt.
    fn edge_ended(self, cpu: Cpu) -> Option<Self> {
        let is_usual = self.into_bits() & UNUSUAL.into_bits() == 0 && self.edge();
        let ours = self.listed() && self.taker() == Some(cpu);
        let ended = || self.inactive().with_listed(false).with_lent(false);
        (is_usual && ours).then(ended)
    }

    /// Returns the word after a list register that was filled with one state is folded with another
    /// state. `level` is the level of the physical interrupt, if the guest has not acknowledged it.
    fn folded(
        self,
        Filled { state: filled, physical, .. }: Filled,
        left: ListRegister,
        level: Level,
    ) -> Self {
        let now = left.state();
        let holds = physical.is_some() && physical == self.physical() && now != Invalid;
        let high = level == Level::High && (holds || self.physical().is_none());
        let active = match (is_active(filled), is_active(now)) {
            _ if self.forced_active() => true,
            _ if self.forced_inactive() => false,
            (false, true) => true,
            (true, false) => false,
            _ => self.active(),
        };
        let back = self
            .with_listed(false)
            .with_line(self.line() || high)
            .with_physical_active(self.physical_active() || holds)
            .with_latch(self.latch() || (self.lent() && is_pending(now)))
            .with_lent(false)
            .with_forced_active(false)
            .with_forced_inactive(false);
        match (active, is_active(now)) {
            (true, true) if is_pending(filled) && !is_pending(now) => {
                back.with_active(true).running_at(left.priority_value())
            }
            (true, _) => back.with_active(true),
            // A register write ended the interrupt.
            (false, true) => back.deactivated(),
            (false, false) => back.inactive(),
        }
    }
}

/// Returns `true` if the guest deactivated the interrupt in the list register.
fn was_ended(filled: ListRegisterState, now: ListRegisterState) -> bool {
    match filled {
        Pending => now == Invalid,
        Active | PendingActive => !is_active(now),
        Invalid => false,
    }
}

impl Wired {
    /// Visits `cpu`'s candidates that can be put into a list register, i.e. that are ready or
    /// active there. Must be called on the vCPU's own thread.
    pub(crate) fn listable(&self, cpu: Cpu, mut each: impl FnMut(WiredIndex, InterruptWord)) {
        let Some(private) = self.private(cpu) else { return };
        private.candidates.visit(|index| {
            let state = self.state_to_signal(cpu, index);
            if state.ready_at(cpu) || state.active_at(cpu) {
                each(index, state);
                Look::Ready
            } else {
                Look::Stale
            }
        });
    }

    /// Moves the interrupt at `index` into a list register of `cpu`, if it is still ready or active
    /// there with the priority, group and trigger of `expected`. Returns the contents for the list
    /// register.
    pub(crate) fn list(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        expected: InterruptWord,
        forwarding: Forwarding,
    ) -> Option<Filled> {
        // If the vCPU's participation changes after this check, the list registers are recalled.
        let participates = !expected.active() || self.interrupts.pes.participates(cpu, expected);
        let contents = |state: InterruptWord| state.to_list(cpu, forwarding, participates);
        let (old, _) = self.interrupts.get(cpu, index)?.try_update(|state| {
            let same = (state.ready_at(cpu) || state.active_at(cpu))
                && state.priority() == expected.priority()
                && state.group1() == expected.group1()
                && state.edge() == expected.edge();
            let filled = contents(state);
            (same && filled.state != Invalid).then(|| state.listed_at(cpu, filled))
        })?;
        Some(contents(old))
    }

    /// Folds a list register of `cpu` whose interrupt the guest has ended, and moves the interrupt
    /// into it again, if it is ready and `forwards` returns `true` for its group. The contents must
    /// be [plain](Filled::is_plain). Returns the new state, or `None` if nothing changes.
    pub(crate) fn list_again(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        forwards: impl Fn(Group) -> bool,
    ) -> Option<InterruptWord> {
        let again = |state: InterruptWord| {
            let ended = state.edge_ended(cpu)?;
            let is_ready = ended.ready_at(cpu) && forwards(ended.group());
            is_ready.then(|| ended.listed_at(cpu, PENDING))
        };
        self.interrupts.get(cpu, index)?.try_update(again).map(|(_, listed)| listed)
    }

    /// Folds a list register of `cpu`. Calls the observer like [`deactivate`](Self::deactivate)
    /// does. Returns the interrupt's new state, or `None` if the interrupt was reset while it was
    /// in the list register.
    pub(crate) fn fold(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        filled: Filled,
        left: ListRegister,
    ) -> Option<InterruptWord> {
        let interrupt = self.interrupts.get(cpu, index)?;
        if filled == PENDING
            && left.state() == Invalid
            && let Some((_, ended)) = interrupt.try_update(|state| state.edge_ended(cpu))
        {
            if ended.ready() {
                self.settle(index, ended);
            }
            return Some(ended);
        }
        self.fold_any(cpu, index, filled, left)
    }

    /// Folds a list register like [`fold`](Self::fold), but handles every case.
    #[inline(never)]
    fn fold_any(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        filled: Filled,
        left: ListRegister,
    ) -> Option<InterruptWord> {
        let now = left.state();
        let interrupt = self.interrupts.get(cpu, index)?;
        let line = index.line(cpu);
        // The level only matters if the guest hasn't acknowledged a linked interrupt.
        let level = self.links.level(line, filled.physical.filter(|_| is_pending(now)));
        let folded = interrupt.try_update(|state| {
            let ours = state.listed() && state.taker() == Some(cpu);
            let sampled = if state.edge() { Level::Low } else { level };
            ours.then(|| {
                self.interrupts.pes.aim(state, state.folded(filled, left, sampled).released())
            })
        });
        let physical = filled.physical.filter(|_| now != Invalid);
        let Some((old, new)) = folded else {
            if let Some(physical) = physical {
                self.links.deactivate(line, physical);
            }
            return None;
        };
        match physical {
            Some(_) if new.physical_active() && new.physical() == physical => {}
            Some(physical) => {
                self.links.deactivate(line, physical);
                // The line may have been linked to another interrupt, which has fired since.
                if old.physical() != Some(physical) {
                    self.links.released(|| line, old, new);
                }
            }
            None => self.links.released(|| line, old, new),
        }
        let ended_by_register = is_active(now) && !new.active();
        let is_held = filled.physical.is_some() || old.physical_active();
        if !is_held && (was_ended(filled.state, now) || ended_by_register) {
            self.tell_observer_of(cpu, index.intid(), old);
        }
        self.settle(index, interrupt.state());
        Some(new)
    }

    /// Makes an interrupt active on behalf of a register write by the guest. A vCPU with list
    /// registers must then put the interrupt into a list register.
    pub(crate) fn activate(&self, cpu: Cpu, intid: IntId) {
        let change =
            |state: InterruptWord| self.interrupts.is_visible(state).then(|| state.activated());
        let Some((old, new)) = self.try_change(cpu, intid, change) else { return };
        self.recall_changed(intid, old, new);
        if let Some((target, index)) =
            new.target().zip(WiredIndex::of(intid)).filter(|_| !old.active())
            && let Some(private) = self.private(target)
        {
            private.candidates.set(index);
            self.recall(intid, target);
        }
    }

    /// Kicks the vCPU that has an interrupt in a list register, after a device has changed the
    /// interrupt, so that the vCPU updates the list register.
    #[inline]
    pub(super) fn refresh_listed(&self, old: InterruptWord, new: InterruptWord) {
        if old.listed() {
            self.kick_taker(old, new);
        }
    }

    #[cold]
    #[inline(never)]
    fn kick_taker(&self, old: InterruptWord, new: InterruptWord) {
        if old != new
            && let Some(taker) = old.taker()
        {
            self.wakeup.kick(taker);
        }
    }

    /// Recalls the vCPU that has an interrupt in a list register, after the guest has changed the
    /// interrupt through a register frame. The change is complete once the interrupt has left the
    /// list register.
    pub(super) fn recall_changed(&self, intid: IntId, old: InterruptWord, new: InterruptWord) {
        if old.listed()
            && old != new
            && let Some(taker) = old.taker()
        {
            self.recall(intid, taker);
        }
    }

    /// Recalls the list registers of `cpu`. The interrupt's register frame waits for the recall. If
    /// the list registers are empty, the vCPU is only kicked, so that it checks its interrupts
    /// again.
    pub(super) fn recall(&self, intid: IntId, cpu: Cpu) {
        if self.wakeup.recall(cpu) {
            match self.private(cpu).filter(|_| intid.is_private()) {
                Some(private) => private.awaited.ask(),
                None => self.awaited.ask(),
            }
        }
        self.wakeup.kick(cpu);
    }
}
