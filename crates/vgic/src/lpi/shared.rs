//! What injection and acknowledgement touch: atomics in type-stable tables, no lock.

use super::config::{LpiConfig, Priorities};
use super::directory::{Nodes, Place};
use super::hints::Hints;
use super::own::OwnLpis;
use super::senders::Senders;
use super::slots::{Position, Slot, SlotTable};
use super::word::{Level, Word};
use crate::atomic::{AtomicU64, Ordering};
use crate::heap::OutOfMemory;
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use alloc::vec::Vec;
use gic_arch::Lpi;

/// The tables.
pub(super) struct Shared {
    /// Words by position.
    pub(super) slots: SlotTable,
    /// Nodes between senders and slots.
    pub(super) nodes: Nodes,
    /// Hints by vCPU.
    pub(super) hints: Box<[Hints]>,
    /// By vCPU: what is pending at its redistributor itself.
    own: Box<[OwnLpis]>,
    /// Positions from this one on are those of a redistributor's own LPIs, by index: the same for
    /// each vCPU, whose hints are its own, too.
    first_own: u32,
    /// What the words' levels mean to the CPU interfaces.
    pub(super) priorities: Priorities,
}

/// Where a word lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Location {
    /// In a slot.
    Slot(Slot),
    /// At a redistributor, for its own LPI of this index.
    Own {
        /// Whose redistributor.
        vcpu: u32,
        /// The index.
        index: u32,
    },
}

impl Location {
    /// That of a redistributor's own LPI.
    pub(super) const fn own(vcpu: u32, lpi: Lpi) -> Self {
        Self::Own { vcpu, index: lpi.index() }
    }
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
    /// Nothing is mapped, all LPIs are disabled.
    pub(super) fn new(config: &LpiConfig) -> Result<Self, OutOfMemory> {
        let (first_own, lpis) = (config.first_own_position(), config.lpis());
        Ok(Self {
            slots: SlotTable::new(config.slots)?,
            nodes: Nodes::new(config.nodes())?,
            hints: by_vcpu(config, |_| Hints::new(first_own + lpis))?,
            own: by_vcpu(config, |vcpu| OwnLpis::new(vcpu, lpis))?,
            first_own,
            priorities: config.priorities,
        })
    }

    /// A message: makes the LPI of a device's event pending. Lock-free; any thread. The second
    /// value is the vCPU to notify.
    #[inline]
    pub(super) fn signal(
        &self,
        senders: &Senders,
        device: u32,
        event: u32,
    ) -> (Injection, Option<u32>) {
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

    /// Is a device's event mapped, to a collection that is? Then a message for it is dropped only
    /// while it is disabled.
    pub(super) fn is_mapped(&self, senders: &Senders, device: u32, event: u32) -> bool {
        self.find(senders, device, event).is_some_and(|place| {
            let word = self.slots.load(place.slot.position());
            word.generation() == place.generation && word.is_mapped()
        })
    }

    /// Makes the LPI of a sender's event pending. Lock-free; any thread. The second value is the
    /// vCPU to notify.
    #[inline]
    pub(super) fn inject(&self, sender: &AtomicU64, event: u32) -> (Injection, Option<u32>) {
        match self.nodes.translate(sender, event) {
            Some(place) => self.pend(place),
            None => (Injection::Dropped, None),
        }
    }

    /// `GICR_SETLPIR`. Lock-free; any thread. The second value is the vCPU to notify.
    #[inline]
    pub(super) fn ring(&self, vcpu: u32, lpi: Lpi) -> (Injection, Option<u32>) {
        let index = lpi.index();
        // Also if P is set already, as for an event's message.
        let pend = |word: Word| word.is_deliverable().then(|| word.with_pending(true));
        match self.own.get(vcpu as usize).and_then(|own| own.try_update(index, pend)) {
            None => (Injection::Dropped, None),
            Some(seen) if seen.is_pending() => (Injection::Coalesced, None),
            Some(seen) => {
                (Injection::Fresh, self.owe(seen.with_pending(true), self.own_position(index)))
            }
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
            // Also if P is set already: only a read-modify-write orders what the sender wrote
            // before this message with the acknowledgement that is to see it.
            match atomic.compare_exchange(
                judged.bits(),
                pending,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
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
            // Of what is in a list register, only its vCPU can say whether it was acknowledged: so
            // it must exit.
            let waits =
                written.is_listed() && written.is_pending() && Safeguard::KickListed.stands();
            return waits.then_some(target);
        }
        self.hints.get(target as usize)?.hint(written.level(), position);
        Some(target)
    }

    /// A vCPU's redistributor's own LPIs.
    pub(super) fn own(&self, vcpu: u32) -> Option<&OwnLpis> {
        self.own.get(vcpu as usize)
    }

    const fn own_position(&self, index: u32) -> Position {
        Position::new(self.first_own + index)
    }

    /// Where the hints of a word lie.
    pub(super) const fn position(&self, location: Location) -> Position {
        match location {
            Location::Slot(slot) => slot.position(),
            Location::Own { index, .. } => self.own_position(index),
        }
    }

    /// What a word holds.
    pub(super) fn load(&self, location: Location) -> Word {
        match location {
            Location::Slot(slot) => self.slots.load(slot.position()),
            Location::Own { vcpu, index } => {
                self.own(vcpu).map_or(Word::unmapped(0), |own| own.load(index))
            }
        }
    }

    /// Replaces a word by `change` of it, in one read-modify-write; returns the old and the new
    /// value.
    pub(super) fn update(&self, location: Location, change: impl Fn(Word) -> Word) -> (Word, Word) {
        let old = match location {
            Location::Slot(slot) => {
                self.slots.try_update(slot.position(), |word| Some(change(word)))
            }
            Location::Own { vcpu, index } => {
                self.own(vcpu).and_then(|own| own.try_update(index, |word| Some(change(word))))
            }
        };
        let old = old.unwrap_or(Word::unmapped(0));
        (old, change(old))
    }

    /// What the word holds that a hint of `vcpu` leads to.
    #[inline]
    pub(super) fn load_at(&self, vcpu: u32, position: Position) -> Word {
        match position.get().checked_sub(self.first_own) {
            None => self.slots.load(position),
            Some(index) => self.load(Location::Own { vcpu, index }),
        }
    }

    /// Replaces the word that a hint of `vcpu` leads to by `change` of it, in one
    /// read-modify-write, while that gives something; returns the old value, `None` if nothing
    /// changed.
    #[inline]
    pub(super) fn try_update_at(
        &self,
        vcpu: u32,
        position: Position,
        change: impl Fn(Word) -> Option<Word>,
    ) -> Option<Word> {
        match position.get().checked_sub(self.first_own) {
            None => self.slots.try_update(position, change),
            Some(index) => self.try_update_own(vcpu, index, change),
        }
    }

    /// Apart, so that what a hint of a slot needs stays short.
    #[inline(never)]
    fn try_update_own(
        &self,
        vcpu: u32,
        index: u32,
        change: impl Fn(Word) -> Option<Word>,
    ) -> Option<Word> {
        self.own(vcpu)?.try_update(index, change)
    }

    /// Makes sure that the word at `position` can be hinted for once it names this vCPU and level.
    /// Off the hot path.
    pub(super) fn ensure_hints(
        &self,
        target: u32,
        level: Level,
        position: Position,
    ) -> Result<(), OutOfMemory> {
        self.hints.get(target as usize).map_or(Ok(()), |hints| hints.ensure(level, position))
    }
}

/// One of each vCPU's.
fn by_vcpu<T>(
    config: &LpiConfig,
    mut make: impl FnMut(u32) -> Result<T, OutOfMemory>,
) -> Result<Box<[T]>, OutOfMemory> {
    let mut all = Vec::new();
    all.try_reserve_exact(config.vcpus.into())?;
    for vcpu in 0..config.vcpus {
        all.push(make(vcpu.into())?);
    }
    Ok(all.into_boxed_slice())
}

#[inline]
fn may_pend(seen: Word, place: Place) -> bool {
    seen.is_deliverable()
        && (seen.generation() == place.generation || !Safeguard::Generation.stands())
}
