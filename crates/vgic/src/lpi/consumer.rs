//! Acknowledges a vCPU's highest-priority pending LPI. Only one consumer may run per vCPU.

use super::entry::{Entry, Level};
use super::entry_table::Position;
use super::itt::EntryRef;
use super::ready_bitmap::{ReadyBit, ReadyBitmap, TurnTable, Visit, Visitor};
use super::shared::Shared;
use alloc::boxed::Box;
use core::ops::ControlFlow;
use doorbell_fallible::{OutOfMemory, try_box};
use gic_arch::{Lpi, Priority};

/// An LPI that can be signaled to its vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReadyLpi {
    /// The LPI.
    pub(crate) lpi: Lpi,
    /// The priority, as the CPU interface sees it.
    pub(crate) priority: Priority,
}

/// Entry for an LPI that its vCPU has moved to a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListedLpi {
    pub(super) position: Position,
    pub(super) generation: u32,
}

/// Consumer state: the position of the round-robin at each priority.
pub(super) struct Consumer {
    pub(super) vcpu: u32,
    /// The state is boxed to keep a vCPU without LPIs small.
    turns: Box<[TurnTable; 1]>,
}

impl Consumer {
    pub(super) fn new(vcpu: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { vcpu, turns: try_box(TurnTable::new())? })
    }

    #[inline]
    pub(super) fn take(&mut self, shared: &Shared, than: Priority) -> Option<ReadyLpi> {
        self.take_entry(shared, than).map(|taken| ready(taken, shared))
    }

    /// Returns the entry by value, in registers, because a store after the exchange would stall
    /// until the exchange has completed.
    #[inline(never)]
    fn take_entry(&mut self, shared: &Shared, than: Priority) -> Option<Entry> {
        let vcpu = self.vcpu;
        let bitmap = shared.ready.get(vcpu as usize)?;
        let (count, turns) = (shared.priorities.levels_before(than), &mut self.turns[0]);
        let mut take = Take { shared, vcpu };
        bitmap.first(count, turns, &mut take).or_else(|| bitmap.walk(count, turns, &mut take))
    }

    /// Moves LPIs to list registers, highest priority first, until `fill` returns
    /// [`ControlFlow::Break`]. Sets L ("listed") in their entries.
    #[inline]
    pub(super) fn list(
        &mut self,
        shared: &Shared,
        than: Priority,
        fill: impl FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>,
    ) {
        let vcpu = self.vcpu;
        let _ = self.walk(shared, than, &mut ListFiller { shared, vcpu, fill });
    }

    /// Makes an event's LPI pending and moves it to a list register in one step, as if
    /// [`list`](Self::list) followed the message immediately. Folds the list register that holds
    /// the LPI already, if there is one. `place` chooses the list register, and is told whether one
    /// holds the LPI. Returns `None` without any effect if `place` does, or if the LPI would not be
    /// ready at this vCPU.
    #[inline]
    pub(super) fn list_message<P>(
        &self,
        shared: &Shared,
        EntryRef { position, generation }: EntryRef,
        place: impl FnOnce(ReadyLpi, ListedLpi, bool) -> Option<P>,
    ) -> Option<P> {
        let old = shared.entries.load(position);
        let arrived = old.folded(false).with_pending(true);
        let is_accepted = old.admits(generation) && !old.is_pending();
        if !(is_accepted && arrived.is_ready_at(self.vcpu, old.level())) {
            return None;
        }
        let listed = ListedLpi { position, generation };
        let place = place(ready(old, shared), listed, old.is_listed())?;
        let list = |entry: Entry| (entry == old).then(|| arrived.listed());
        shared.entries.try_update(position, list).map(|_| place)
    }

    /// Folds an LPI back from a list register. `pending` is `true` if the guest didn't acknowledge
    /// the LPI. If the event has moved since, the LPI becomes pending at its new target; if the
    /// event was unmapped or cleared, it doesn't become pending. Returns the vCPU to notify.
    pub(super) fn fold(&self, shared: &Shared, listed: ListedLpi, pending: bool) -> Option<u32> {
        let back = |entry: Entry| {
            let same = entry.generation() == listed.generation;
            let ours = entry.is_listed() && same;
            ours.then(|| entry.folded(pending))
        };
        let old = shared.try_update_at(self.vcpu, listed.position, back)?;
        shared.set_ready_bit(old.folded(pending), listed.position)
    }

    /// Returns `true` if no ready bit is set. A set bit may be stale.
    #[inline]
    pub(super) fn is_empty(&self, shared: &Shared) -> bool {
        shared.ready.get(self.vcpu as usize).is_none_or(ReadyBitmap::is_empty)
    }

    /// If no LPI is ready, clears the bits that were left set in anticipation of the next
    /// interrupt.
    pub(super) fn prune(&mut self, shared: &Shared) {
        self.turns[0].forget_last();
        let _ = self.highest(shared, Priority::IDLE);
    }

    pub(super) fn highest(&mut self, shared: &Shared, than: Priority) -> Option<ReadyLpi> {
        let vcpu = self.vcpu;
        self.walk(shared, than, &mut Peek { shared, vcpu })
    }

    /// Visits the entries at levels that have higher priority than `than`.
    #[inline]
    fn walk<V: Visitor>(
        &mut self,
        shared: &Shared,
        than: Priority,
        visitor: &mut V,
    ) -> Option<V::Output> {
        let bitmap = shared.ready.get(self.vcpu as usize)?;
        bitmap.walk(shared.priorities.levels_before(than), &mut self.turns[0], visitor)
    }
}

fn ready(entry: Entry, shared: &Shared) -> ReadyLpi {
    ReadyLpi { lpi: entry.lpi(), priority: shared.priorities.of(entry.level()) }
}

/// Visitor that acknowledges the LPI in a ready entry by clearing its pending bit.
pub(super) struct Take<'a> {
    pub(super) shared: &'a Shared,
    pub(super) vcpu: u32,
}

impl Visitor for Take<'_> {
    type Output = Entry;
    const TAKES: bool = true;

    #[inline]
    fn visit(&mut self, ready_bit: ReadyBit<'_>, level: Level, position: Position) -> Visit<Entry> {
        ready_bit.clear();
        // The thread that changed the entry has set the ready bit for the new value, so we can skip
        // a stale bit.
        let vcpu = self.vcpu;
        let take = move |old: Entry| old.is_ready_at(vcpu, level).then(|| old.with_pending(false));
        match self.shared.try_update_at(vcpu, position, take) {
            Some(taken) => Visit::Found(taken),
            None => Visit::Stale,
        }
    }
}

/// Visitor that moves LPIs from ready entries to list registers.
struct ListFiller<'a, F> {
    shared: &'a Shared,
    vcpu: u32,
    fill: F,
}

impl<F: FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>> Visitor for ListFiller<'_, F> {
    type Output = ();
    const TAKES: bool = true;

    #[inline]
    fn visit(&mut self, ready_bit: ReadyBit<'_>, level: Level, position: Position) -> Visit<()> {
        ready_bit.clear();
        let vcpu = self.vcpu;
        let take = move |entry: Entry| entry.is_ready_at(vcpu, level).then(|| entry.listed());
        let Some(taken) = self.shared.try_update_at(vcpu, position, take) else {
            return Visit::Stale;
        };
        let listed = ListedLpi { position, generation: taken.generation() };
        match (self.fill)(ready(taken, self.shared), listed) {
            ControlFlow::Continue(()) => Visit::Taken,
            ControlFlow::Break(()) => Visit::Found(()),
        }
    }
}

/// Visitor that finds a ready entry, but leaves it pending.
pub(super) struct Peek<'a> {
    pub(super) shared: &'a Shared,
    pub(super) vcpu: u32,
}

impl Visitor for Peek<'_> {
    type Output = ReadyLpi;
    const TAKES: bool = false;

    fn visit(
        &mut self,
        ready_bit: ReadyBit<'_>,
        level: Level,
        position: Position,
    ) -> Visit<ReadyLpi> {
        let entry = self.shared.load_at(self.vcpu, position);
        if entry.is_ready_at(self.vcpu, level) {
            return Visit::Found(ready(entry, self.shared));
        }
        ready_bit.clear();
        let entry = self.shared.load_at(self.vcpu, position);
        if entry.is_ready_at(self.vcpu, level) {
            // A command may have cleared the path to the empty leaf.
            self.shared.set_ready_bit(entry, position);
            return Visit::Found(ready(entry, self.shared));
        }
        Visit::Stale
    }
}
