//! What injection and acknowledgement touch: atomics in type-stable tables, no lock.

use super::config::Priorities;
use super::directory::{Nodes, Place};
use super::hints::Hints;
use super::knocks::Knocks;
use super::senders::Senders;
use super::slots::{Position, SlotTable};
use super::word::{Gate, Level, Word};
use crate::atomic::{AtomicU64, Ordering};
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use gic_arch::Lpi;

/// The tables.
pub(super) struct Shared {
    /// Words by position.
    pub(super) slots: SlotTable,
    /// Nodes between senders and slots.
    pub(super) nodes: Nodes,
    /// Hints by vCPU.
    pub(super) hints: Box<[Hints]>,
    /// By vCPU: the entry of its redistributor as a sender, whose "events" are LPI indices. These slots hold what is
    /// pending at the redistributor itself: by `GICR_SETLPIR`, by MOVALL, from the pending table.
    pub(super) own: Box<[AtomicU64]>,
    /// By vCPU, where there is `GICR_SETLPIR`: LPIs that were rung by it and have no such slot yet.
    pub(super) knocks: Box<[Knocks]>,
    /// What the words' levels mean to the CPU interfaces.
    pub(super) priorities: Priorities,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Injection {
    /// The LPI is pending now.
    Fresh,
    /// It was pending already.
    Coalesced,
    /// Nothing is mapped there, or it may not become pending.
    Dropped,
}

impl Shared {
    /// A message: makes the LPI of a device's event pending. Lock-free; any thread. The second value is the
    /// vCPU to notify.
    #[inline]
    pub(super) fn signal(&self, senders: &Senders, device: u32, event: u32) -> (Injection, Option<u32>) {
        match self.find(senders, device, event) {
            Some(place) => self.pend(place),
            None => (Injection::Dropped, None),
        }
    }

    #[inline]
    fn find(&self, senders: &Senders, device: u32, event: u32) -> Option<Place> {
        let sender = senders.get(device)?;
        let place = self.nodes.translate(sender, event)?;
        senders.leads_to(device, sender).then_some(place)
    }

    /// Is a device's event mapped, to a collection that is? Then a message for it is dropped only while it
    /// is disabled.
    pub(super) fn is_mapped(&self, senders: &Senders, device: u32, event: u32) -> bool {
        self.find(senders, device, event).is_some_and(|place| {
            let word = self.slots.load(place.slot.position());
            word.generation() == place.generation && matches!(word.gate(), Gate::Closed | Gate::Open)
        })
    }

    /// Makes the LPI of a sender's event pending. Lock-free; any thread. The second value is the vCPU to notify.
    #[inline]
    pub(super) fn inject(&self, sender: &AtomicU64, event: u32) -> (Injection, Option<u32>) {
        match self.nodes.translate(sender, event) {
            Some(place) => self.pend(place),
            None => (Injection::Dropped, None),
        }
    }

    /// `GICR_SETLPIR`: as [`inject`](Self::inject), also for an LPI that has no slot yet.
    pub(super) fn ring(&self, vcpu: u32, lpi: Lpi) -> (Injection, Option<u32>) {
        let at = vcpu as usize;
        let Some((own, knocks)) = self.own.get(at).zip(self.knocks.get(at)) else {
            return (Injection::Dropped, None);
        };
        match self.inject(own, lpi.index()) {
            (Injection::Dropped, _) if knocks.ring(lpi) => (Injection::Fresh, Some(vcpu)),
            done => done,
        }
    }

    #[inline]
    fn pend(&self, place: Place) -> (Injection, Option<u32>) {
        let position = place.slot.position();
        let Some(atomic) = self.slots.word(position) else {
            return (Injection::Dropped, None);
        };
        let mut seen = Word::from_bits(atomic.load(Ordering::SeqCst));
        loop {
            if !may_pend(seen, place) {
                return (Injection::Dropped, None);
            }
            if seen.is_pending() && !Safeguard::CoalesceByExchange.stands() {
                return (Injection::Coalesced, None);
            }
            let judged = if Safeguard::CompareWord.stands() {
                seen
            } else {
                Word::from_bits(atomic.load(Ordering::SeqCst))
            };
            let pending = judged.with_pending(true).bits();
            // Also if P is set already: only a read-modify-write orders what the sender wrote before this message
            // with the acknowledgement that is to see it.
            match atomic.compare_exchange(judged.bits(), pending, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => seen = Word::from_bits(now),
            }
        }
        if seen.is_pending() {
            return (Injection::Coalesced, None);
        }
        (Injection::Fresh, self.owe(seen.with_pending(true), position))
    }

    /// Hints for a word that was just written, if it is ready. Returns the vCPU to notify.
    #[inline]
    pub(super) fn owe(&self, written: Word, position: Position) -> Option<u32> {
        let target = written.target();
        if !written.is_ready() {
            // Of what is in a list register, only its vCPU can say whether it was acknowledged: so it must exit.
            let waits = written.is_listed() && written.is_pending() && Safeguard::KickListed.stands();
            return waits.then_some(target);
        }
        self.hints.get(target as usize)?.hint(written.level(), position);
        Some(target)
    }

    /// Makes sure that the word at `position` can be hinted for once it names this vCPU and level. Off the hot path.
    pub(super) fn ensure_hints(&self, target: u32, level: Level, position: Position) {
        if let Some(hints) = self.hints.get(target as usize) {
            hints.ensure(level, position);
        }
    }
}

#[inline]
fn may_pend(seen: Word, place: Place) -> bool {
    seen.is_deliverable() && (seen.generation() == place.generation || !Safeguard::Generation.stands())
}
