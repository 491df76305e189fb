//! The vCPU's side of the LPI core, owned by its thread: acknowledges or lists the highest-priority
//! pending LPI.

use super::entry::{Entry, Level, ReadyFor};
use super::entry_table::Position;
use super::itt::EntryRef;
use super::ready_bitmap::{ReadyBit, ReadyBitmap, TurnTable, Visit, Visitor};
use super::shared::Shared;
use crate::wakeup::VcpuWakeup;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::ops::ControlFlow;
use doorbell_fallible::{OutOfMemory, try_box};
use gic_arch::{Lpi, Priority};
use msi_types::Cpu;

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

/// One vCPU's pending LPIs. At most one value exists per vCPU, and the vCPU's thread owns it.
pub(crate) struct PendingLpis {
    shared: Arc<Shared>,
    wakeup: Arc<VcpuWakeup>,
    vcpu: ReadyFor,
    /// The vCPU's bitmap, cached because most accesses by the consumer start there.
    bitmap: Arc<ReadyBitmap>,
    /// The position of the round-robin at each priority, boxed to keep a vCPU without LPIs small.
    turns: Box<[TurnTable; 1]>,
}

msi_types::debug_by!(PendingLpis as "PendingLpis", |it| {cpu: it.vcpu.vcpu()});

impl PendingLpis {
    pub(super) fn new(
        vcpu: u32,
        shared: Arc<Shared>,
        wakeup: Arc<VcpuWakeup>,
        bitmap: Arc<ReadyBitmap>,
    ) -> Result<Self, OutOfMemory> {
        let turns = try_box(TurnTable::new())?;
        Ok(Self { shared, wakeup, vcpu: ReadyFor::new(vcpu), bitmap, turns })
    }

    /// Fast path of [`take`](Self::take), which must follow after [`ControlFlow::Continue`].
    /// Only calls `than` if an LPI may be pending.
    #[inline(always)]
    pub(crate) fn take_first(
        &mut self,
        than: impl FnOnce() -> Priority,
    ) -> ControlFlow<Option<ReadyLpi>> {
        let (shared, vcpu, mut priority) = (&*self.shared, self.vcpu, Priority::IDLE);
        let admits = |level| {
            priority = shared.priorities.of(level);
            priority.is_more_urgent_than(than())
        };
        let (turns, mut take) = (&mut self.turns[0], Take::<true> { shared, vcpu });
        let taken = self.bitmap.first(admits, || shared.first_own, turns, &mut take);
        taken.map_break(|taken| taken.map(|taken| ReadyLpi { lpi: taken.lpi(), priority }))
    }

    /// Acknowledges the highest-priority pending LPI, if its priority is higher than `than`.
    pub(crate) fn take(&mut self, than: Priority) -> Option<ReadyLpi> {
        let (shared, vcpu) = (&*self.shared, self.vcpu);
        let levels = shared.priorities.levels_before(than);
        let mut take = Take::<false> { shared, vcpu };
        let taken = self.bitmap.walk(levels, &mut self.turns[0], &mut take);
        taken.map(|taken| ready(taken, taken.level(), shared))
    }

    /// Fast path of [`list`](Self::list), which must follow after [`ControlFlow::Continue`].
    #[inline(always)]
    pub(crate) fn list_first(
        &mut self,
        mut fill: impl FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (shared, vcpu) = (&*self.shared, self.vcpu);
        let priority = Cell::new(Priority::IDLE);
        let admits = |level| {
            priority.set(shared.priorities.of(level));
            true
        };
        let fill = |ready, listed| fill(ReadyLpi { priority: priority.get(), ..ready }, listed);
        let (turns, mut list) = (&mut self.turns[0], ListFiller::<_, true> { shared, vcpu, fill });
        self.bitmap.first(admits, || shared.first_own, turns, &mut list).map_break(drop)
    }

    /// Moves pending LPIs whose priority is higher than `than` into list registers, highest
    /// priority first, until `fill` returns [`ControlFlow::Break`]. Sets L ("listed") in their
    /// entries.
    #[inline]
    pub(crate) fn list(
        &mut self,
        than: Priority,
        fill: impl FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>,
    ) {
        if !self.is_empty() {
            let (shared, vcpu) = (&*self.shared, self.vcpu);
            let levels = shared.priorities.levels_before(than);
            let mut list = ListFiller::<_, false> { shared, vcpu, fill };
            let _ = self.bitmap.walk(levels, &mut self.turns[0], &mut list);
        }
    }

    /// Makes an event's LPI pending and moves it to a list register in one step, as if
    /// [`list`](Self::list) followed the message immediately. Folds the list register that holds
    /// the LPI already, if there is one. `place` chooses the list register, and is told whether one
    /// holds the LPI. Returns `None` without any effect if `place` does, or if the LPI would not be
    /// ready at this vCPU.
    #[inline]
    pub(crate) fn list_message<P>(
        &self,
        found: EntryRef,
        place: impl FnOnce(ReadyLpi, ListedLpi, bool) -> Option<P>,
    ) -> Option<P> {
        let shared = &*self.shared;
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
    pub(crate) fn list_again(&self, listed: ListedLpi) -> Option<ReadyLpi> {
        let (shared, vcpu) = (&*self.shared, self.vcpu);
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
    /// event was unmapped or cleared, it doesn't become pending.
    pub(crate) fn fold(&self, listed: ListedLpi, pending: bool) {
        if let Some(vcpu) = fold(&self.shared, self.vcpu.vcpu(), listed, pending) {
            self.wakeup.kick(Cpu::new(vcpu));
        }
    }

    /// Returns `true` if no LPI is pending. The check is a single load, and a result of `false` may
    /// be stale until [`prune`](Self::prune).
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bitmap.is_empty()
    }

    /// Clears the bits that were left set in anticipation of the next LPI, so that
    /// [`is_empty`](Self::is_empty) returns `true`. Called after no LPI was found.
    pub(crate) fn prune(&mut self) {
        if !self.is_empty() {
            self.turns[0].forget_last();
            let _ = self.highest(Priority::IDLE);
        }
    }

    /// Returns the LPI that [`take`](Self::take) would acknowledge. A vCPU also calls this method
    /// before it sleeps, after it has set `needs_kick`: an LPI that becomes pending after the call
    /// will kick the vCPU.
    #[inline]
    pub(crate) fn highest(&mut self, than: Priority) -> Option<ReadyLpi> {
        if self.is_empty() {
            return None;
        }
        let mut peek = Peek { shared: &self.shared, vcpu: self.vcpu };
        let levels = self.shared.priorities.levels_before(than);
        self.bitmap.walk(levels, &mut self.turns[0], &mut peek)
    }
}

/// Folds an LPI back from a list register of this vCPU. Returns the vCPU to notify.
pub(super) fn fold(shared: &Shared, vcpu: u32, listed: ListedLpi, pending: bool) -> Option<u32> {
    let back = |entry: Entry| {
        let ours = entry.is_listed() && entry.generation() == listed.generation;
        ours.then(|| entry.folded(pending))
    };
    let old = shared.try_update_at(vcpu, listed.position, back)?;
    shared.set_ready_bit(old.folded(pending), listed.position)
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
