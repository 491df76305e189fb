//! Acknowledges a vCPU's highest-priority pending LPI. Only one consumer may run per vCPU.

use super::entry::{Entry, Level, ReadyFor};
use super::entry_table::Position;
use super::itt::EntryRef;
use super::ready_bitmap::{ReadyBit, ReadyBitmap, TurnTable, Visit, Visitor};
use super::shared::Shared;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
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
    vcpu: ReadyFor,
    /// The vCPU's bitmap, cached because most accesses by the consumer start there.
    bitmap: Arc<ReadyBitmap>,
    /// The state is boxed to keep a vCPU without LPIs small.
    turns: Box<[TurnTable; 1]>,
}

impl Consumer {
    pub(super) fn new(vcpu: u32, bitmap: Arc<ReadyBitmap>) -> Result<Self, OutOfMemory> {
        Ok(Self { vcpu: ReadyFor::new(vcpu), bitmap, turns: try_box(TurnTable::new())? })
    }

    /// Returns the vCPU's number.
    pub(super) const fn vcpu(&self) -> u32 {
        self.vcpu.vcpu()
    }

    /// Fast path of [`take`](Self::take), which must follow after [`ControlFlow::Continue`].
    /// Only calls `than` if a bit is set.
    #[inline(always)]
    pub(super) fn take_first(
        &mut self,
        shared: &Shared,
        than: impl FnOnce() -> Priority,
    ) -> ControlFlow<Option<ReadyLpi>> {
        let (vcpu, mut priority) = (self.vcpu, Priority::IDLE);
        let admits = |level| {
            priority = shared.priorities.of(level);
            priority.is_more_urgent_than(than())
        };
        let taken = self.first(shared, admits, &mut Take::<true> { shared, vcpu });
        taken.map_break(|taken| taken.map(|taken| ReadyLpi { lpi: taken.lpi(), priority }))
    }

    /// Acknowledges the highest-priority LPI.
    pub(super) fn take(&mut self, shared: &Shared, than: Priority) -> Option<ReadyLpi> {
        let vcpu = self.vcpu;
        let taken = self.walk(shared, than, &mut Take::<false> { shared, vcpu });
        taken.map(|taken| ready(taken, taken.level(), shared))
    }

    /// Fast path of [`list`](Self::list), which must follow after [`ControlFlow::Continue`].
    #[inline(always)]
    pub(super) fn list_first(
        &mut self,
        shared: &Shared,
        mut fill: impl FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let vcpu = self.vcpu;
        let priority = Cell::new(Priority::IDLE);
        let admits = |level| {
            priority.set(shared.priorities.of(level));
            true
        };
        let fill = |ready, listed| fill(ReadyLpi { priority: priority.get(), ..ready }, listed);
        let end = self.first(shared, admits, &mut ListFiller::<_, true> { shared, vcpu, fill });
        end.map_break(drop)
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
        let _ = self.walk(shared, than, &mut ListFiller::<_, false> { shared, vcpu, fill });
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
        found: EntryRef,
        place: impl FnOnce(ReadyLpi, ListedLpi, bool) -> Option<P>,
    ) -> Option<P> {
        let (position, generation) = (found.position, found.generation());
        let old = shared.entries.load(position);
        let arrived = old.folded(false).with_pending(true);
        let is_accepted = old.admits(found.link.bits()) && !old.is_pending();
        if !(is_accepted && arrived.is_ready_at(self.vcpu, old.level())) {
            return None;
        }
        let listed = ListedLpi { position, generation };
        let place = place(ready(old, old.level(), shared), listed, old.is_listed())?;
        let list = |entry: Entry| (entry == old).then(|| arrived.listed());
        shared.entries.try_update(position, list).map(|_| place)
    }

    /// Folds an LPI that the guest has acknowledged, and moves it into the same list register, if
    /// it is ready at this vCPU then. Otherwise, returns `None` without any effect.
    #[inline]
    pub(super) fn list_again(&self, shared: &Shared, listed: ListedLpi) -> Option<ReadyLpi> {
        let vcpu = self.vcpu;
        let again = |entry: Entry| {
            let ours = entry.is_listed() && entry.generation() == listed.generation;
            let folded = entry.folded(false);
            (ours && folded.is_ready_at(vcpu, folded.level())).then(|| folded.listed())
        };
        let old = shared.try_update_at(vcpu.vcpu(), listed.position, again)?;
        Some(ready(old, old.level(), shared))
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
        let old = shared.try_update_at(self.vcpu(), listed.position, back)?;
        shared.set_ready_bit(old.folded(pending), listed.position)
    }

    /// Returns `true` if no ready bit is set. A set bit may be stale.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bitmap.is_empty()
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

    /// Fast path of [`walk`](Self::walk) over the entries of events: see [`ReadyBitmap::first`].
    #[inline(always)]
    fn first<V: Visitor>(
        &mut self,
        shared: &Shared,
        admits: impl FnOnce(Level) -> bool,
        visitor: &mut V,
    ) -> ControlFlow<Option<V::Output>> {
        self.bitmap.first(admits, || shared.first_own, &mut self.turns[0], visitor)
    }

    /// Visits the entries at levels that have higher priority than `than`.
    #[inline]
    fn walk<V: Visitor>(
        &mut self,
        shared: &Shared,
        than: Priority,
        visitor: &mut V,
    ) -> Option<V::Output> {
        self.bitmap.walk(shared.priorities.levels_before(than), &mut self.turns[0], visitor)
    }
}

fn ready(entry: Entry, level: Level, shared: &Shared) -> ReadyLpi {
    ReadyLpi { lpi: entry.lpi(), priority: shared.priorities.of(level) }
}

/// Updates the entry of one of `vcpu`'s ready bits, as [`Shared::try_update_at`]. If `EVENTS` is
/// `true`, the position must be that of an event's entry.
#[inline(always)]
fn try_update<const EVENTS: bool>(
    shared: &Shared,
    vcpu: ReadyFor,
    position: Position,
    change: impl Fn(Entry) -> Option<Entry>,
) -> Option<Entry> {
    if EVENTS {
        shared.entries.try_update(position, change)
    } else {
        shared.try_update_at(vcpu.vcpu(), position, change)
    }
}

/// Visitor that acknowledges the LPI in a ready entry by clearing its pending bit. If `EVENTS` is
/// `true`, it only visits the entries of events.
pub(super) struct Take<'a, const EVENTS: bool> {
    pub(super) shared: &'a Shared,
    pub(super) vcpu: ReadyFor,
}

impl<const EVENTS: bool> Visitor for Take<'_, EVENTS> {
    type Output = Entry;
    const TAKES: bool = true;

    #[inline]
    fn visit(&mut self, ready_bit: ReadyBit<'_>, level: Level, position: Position) -> Visit<Entry> {
        ready_bit.clear();
        // The thread that changed the entry has set the ready bit for the new value, so we can skip
        // a stale bit.
        let vcpu = self.vcpu;
        let take = move |old: Entry| old.is_ready_at(vcpu, level).then(|| old.with_pending(false));
        match try_update::<EVENTS>(self.shared, vcpu, position, take) {
            Some(taken) => Visit::Found(taken),
            None => Visit::Stale,
        }
    }
}

/// Visitor that moves LPIs from ready entries to list registers, as [`Take`].
struct ListFiller<'a, F, const EVENTS: bool> {
    shared: &'a Shared,
    vcpu: ReadyFor,
    fill: F,
}

impl<F: FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>, const EVENTS: bool> Visitor
    for ListFiller<'_, F, EVENTS>
{
    type Output = ();
    const TAKES: bool = true;

    #[inline]
    fn visit(&mut self, ready_bit: ReadyBit<'_>, level: Level, position: Position) -> Visit<()> {
        ready_bit.clear();
        let vcpu = self.vcpu;
        let take = move |entry: Entry| entry.is_ready_at(vcpu, level).then(|| entry.listed());
        let Some(taken) = try_update::<EVENTS>(self.shared, vcpu, position, take) else {
            return Visit::Stale;
        };
        let listed = ListedLpi { position, generation: taken.generation() };
        match (self.fill)(ready(taken, level, self.shared), listed) {
            ControlFlow::Continue(()) => Visit::Taken,
            ControlFlow::Break(()) => Visit::Found(()),
        }
    }
}

/// Visitor that finds a ready entry, but leaves it pending.
pub(super) struct Peek<'a> {
    pub(super) shared: &'a Shared,
    pub(super) vcpu: ReadyFor,
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
        let entry = self.shared.load_at(self.vcpu.vcpu(), position);
        if entry.is_ready_at(self.vcpu, level) {
            return Visit::Found(ready(entry, level, self.shared));
        }
        ready_bit.clear();
        let entry = self.shared.load_at(self.vcpu.vcpu(), position);
        if entry.is_ready_at(self.vcpu, level) {
            // A command may have cleared the path to the empty leaf.
            self.shared.set_ready_bit(entry, position);
            return Visit::Found(ready(entry, level, self.shared));
        }
        Visit::Stale
    }
}
