//! 1-of-N interrupts (IHI 0069 §2.3.2): whom an SPI goes to that any participating PE may take.
//!
//! The choice is made when the interrupt becomes pending and is kept in its word. A PE that stops
//! participating gives up what was chosen for it but not yet acknowledged, a PE that begins takes
//! what nobody wanted. Choice and participation are store buffering. The chooser writes the word
//! and looks at the participation again; the PE writes its participation and looks at the words.

use super::{Group, Private, Wired, participation};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use core::sync::atomic::Ordering::SeqCst;
use msi_types::Cpu;

/// Most choices for one interrupt if the chosen PE withdraws meanwhile. Afterwards the PE's own
/// sweep finds it.
const ATTEMPTS: usize = 4;

impl Private {
    /// Does this PE take 1-of-N interrupts of the group with this index?
    fn participates(&self, group: usize) -> bool {
        let bits = self.participation.load(SeqCst);
        let wanted = participation::AWAKE | participation::GROUP[group];
        bits & wanted == wanted && bits & participation::DECLINES[group] == 0
    }
}

impl Wired {
    /// `new`, aimed at a PE: where a 1-of-N interrupt becomes pending, or is pending without a PE,
    /// one is chosen.
    pub(super) fn aim(&self, old: InterruptWord, new: InterruptWord) -> InterruptWord {
        let becomes = new.pending() && !old.pending();
        let homeless = new.pending() && new.target().is_none();
        if new.any() && !new.active() && (becomes || homeless) {
            new.with_target_index(self.choose(new))
        } else {
            new
        }
    }

    /// The next PE after the last one that participates in the interrupt's group.
    fn choose(&self, state: InterruptWord) -> u16 {
        let group = Group::of(state).index();
        let count = self.cpus.len();
        let start = state.target().map_or(0, |last| last.index() + 1);
        (0..count)
            .map(|step| (start + step) % count.max(1))
            .find(|index| self.cpus.get(*index).is_some_and(|private| private.participates(group)))
            .and_then(|index| u16::try_from(index).ok())
            .unwrap_or(InterruptWord::NOWHERE)
    }

    /// Chooses anew while the PE chosen for a pending 1-of-N interrupt does not participate any
    /// more.
    pub(super) fn settle_any(&self, index: WiredIndex, mut state: InterruptWord) -> InterruptWord {
        let Some(interrupt) = index.shared_index().and_then(|index| self.shared.get(index)) else {
            return state;
        };
        for _ in 0..ATTEMPTS {
            if !self.is_misplaced(state) {
                break;
            }
            let (old, new) = interrupt.update(|now| {
                if self.is_misplaced(now) { now.with_target_index(self.choose(now)) } else { now }
            });
            self.recall_changed(index.intid(), old, new);
            state = new;
            if state.target().is_none() {
                break;
            }
        }
        state
    }

    /// Pending, for any PE, and not at one that takes it.
    fn is_misplaced(&self, state: InterruptWord) -> bool {
        let at_participant = state
            .target()
            .and_then(|target| self.private(target))
            .is_some_and(|private| private.participates(Group::of(state).index()));
        state.any() && state.pending() && !state.active() && !at_participant
    }

    /// Changes what a PE takes part in: sets and clears bits of [`participation`]. Interrupts that
    /// were chosen for it, or that found nobody, are placed anew.
    pub(crate) fn set_participation(&self, cpu: Cpu, set: u32, clear: u32) {
        let Some(private) = self.private(cpu) else { return };
        let change = |bits| Some((bits & !clear) | set).filter(|new| *new != bits);
        let changed = change(private.participation.load(SeqCst)).is_some()
            && private.participation.fetch_update(SeqCst, SeqCst, change).is_ok();
        if changed && self.one_of_n {
            for index in 0..self.shared.len() {
                self.place_anew(index);
            }
        }
        if changed {
            if self.wakeup.recall(cpu) {
                private.awaited.ask();
            }
            self.wakeup.kick(cpu);
        }
    }

    fn place_anew(&self, shared_index: usize) {
        if let (Some(index), Some(interrupt)) =
            (WiredIndex::shared(shared_index), self.shared.get(shared_index))
        {
            let state = interrupt.state();
            if self.is_misplaced(state) {
                self.settle(index, state);
            }
        }
    }
}
