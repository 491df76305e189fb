//! Where a vector is routed, where it was, and where it may be pending.

use super::Clock;
use crate::lock::lock;
use msi_types::Cpu;
use std::sync::{Arc, Mutex};

/// A CPU that is still a possible target.
const OPEN: u64 = u64::MAX;

/// What becomes of what is pending when a vector moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    /// There is one pending bit: it goes along.
    Travels,
    /// Each CPU has a pending bit, and keeps it.
    Stays,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// It arrived where it was sent.
    Sent,
    /// The endpoint holds it back for the time of an operation.
    Held,
    /// The endpoint may not send.
    Not,
}

/// One vector, from its allocation until it is freed.
#[derive(Debug)]
pub(crate) struct Route {
    clock: Arc<Clock>,
    pending: Pending,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: Vec<Place>,
    /// The possible targets: one, or two during a move.
    open: Vec<Cpu>,
    /// While a message is under way: where it may arrive.
    message: Option<Vec<Cpu>>,
    /// While the endpoint holds messages back: where they may arrive.
    held: Option<Vec<Cpu>>,
    /// Resends for which the handler may run once more than there are messages.
    unknowable: u64,
}

/// What is known of the vector at one CPU.
#[derive(Clone, Debug)]
struct Place {
    /// When it ceased to be a possible target; 0 if it never was one.
    closed_at: u64,
    /// When something arrived here last.
    arrived_at: u64,
    /// When the CPU went to look for what it acknowledged last.
    looked_at: u64,
    /// Resends under way to here.
    resends: u32,
}

impl Route {
    /// Nowhere, on `cpus` CPUs.
    pub(crate) fn new(clock: Arc<Clock>, cpus: usize, pending: Pending) -> Self {
        let place = Place { closed_at: 0, arrived_at: 0, looked_at: 0, resends: 0 };
        let state = State { places: vec![place; cpus], ..State::default() };
        Self { clock, pending, state: Mutex::new(state) }
    }

    /// From now on, messages may go to `cpu`, too.
    pub(crate) fn open(&self, cpu: Cpu) {
        lock(&self.state).open(cpu);
    }

    /// From now on, messages go to `target` alone.
    pub(crate) fn settle(&self, target: Cpu) {
        let state = &mut *lock(&self.state);
        state.open(target);
        let now = self.clock.tick();
        for cpu in std::mem::replace(&mut state.open, vec![target]) {
            if let Some(place) = state.places.get_mut(cpu.index()).filter(|_| cpu != target) {
                place.closed_at = now;
            }
        }
    }

    /// A message is about to be sent. One at a time.
    pub(super) fn message_begins(&self) {
        let state = &mut *lock(&self.state);
        state.message = Some(state.open.clone());
    }

    /// That message was sent, or not. `Held` are those that [are released](Self::released) later.
    pub(super) fn message_ended(&self, left: Left) {
        let state = &mut *lock(&self.state);
        let at = state.message.take().unwrap_or_default();
        match left {
            Left::Not => {}
            Left::Held => state.held.get_or_insert_default().extend(at),
            Left::Sent => {
                // What was held back went before it.
                let released = state.held.take().unwrap_or_default();
                state.arrived(at.into_iter().chain(released), self.clock.tick());
            }
        }
    }

    /// The endpoint may hold messages back that nobody told of, until they [are released](Self::released).
    pub(super) fn hold(&self) {
        let state = &mut *lock(&self.state);
        state.held = Some(state.open.clone());
    }

    /// The endpoint holds nothing back any more.
    pub(super) fn released(&self) {
        let state = &mut *lock(&self.state);
        if let Some(at) = state.held.take() {
            state.arrived(at, self.clock.tick());
        }
    }

    /// The driver is about to make it pending at `cpu`. Elsewhere than at a target that is no excuse.
    pub(super) fn resending(&self, cpu: Cpu) {
        let state = &mut *lock(&self.state);
        if state.open.contains(&cpu)
            && let Some(place) = state.places.get_mut(cpu.index())
        {
            place.resends += 1;
        }
    }

    /// It did.
    pub(super) fn resent(&self, cpu: Cpu) {
        let now = self.clock.tick();
        let state = &mut *lock(&self.state);
        if let Some(place) = state.places.get_mut(cpu.index()).filter(|place| place.resends != 0) {
            place.resends -= 1;
            place.arrived_at = now;
        }
    }

    /// The driver does not know whether it was pending: its handler may run once more.
    pub(super) fn count_unknowable(&self) {
        lock(&self.state).unknowable += 1;
    }

    /// `cpu`, which went to look at `looked_at`, acknowledged it. False if nothing can have been pending there.
    pub(super) fn take(&self, cpu: Cpu, looked_at: u64) -> bool {
        let state = &mut *lock(&self.state);
        let under_way = state.is_under_way_to(cpu);
        let Some(place) = state.places.get_mut(cpu.index()) else { return false };
        let arrived = place.arrived_at > place.looked_at;
        place.looked_at = looked_at.max(place.looked_at);
        under_way || arrived
    }

    /// Nothing is pending at `cpu` any more, unless it is sent there from now on.
    pub(super) fn empty(&self, cpu: Cpu) {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        if let Some(place) = state.places.get_mut(cpu.index()).filter(|_| !state.open.contains(&cpu)) {
            place.looked_at = now;
        }
    }

    /// Where messages go; `None` if nowhere yet.
    pub(super) fn target(&self) -> Option<Cpu> {
        lock(&self.state).open.first().copied()
    }

    pub(super) fn pending(&self) -> Pending {
        self.pending
    }

    /// Was `cpu` a possible target at any time since `time`?
    pub(super) fn was_target_since(&self, cpu: Cpu, time: u64) -> bool {
        lock(&self.state).places.get(cpu.index()).is_some_and(|place| place.closed_at > time)
    }

    pub(super) fn unknowable(&self) -> u64 {
        lock(&self.state).unknowable
    }
}

impl State {
    fn open(&mut self, cpu: Cpu) {
        let Some(place) = self.places.get_mut(cpu.index()) else { return };
        if place.closed_at != OPEN {
            place.closed_at = OPEN;
            self.open.push(cpu);
            [&mut self.message, &mut self.held].into_iter().flatten().for_each(|at| at.push(cpu));
        }
    }

    fn arrived(&mut self, at: impl IntoIterator<Item = Cpu>, now: u64) {
        for cpu in at {
            if let Some(place) = self.places.get_mut(cpu.index()) {
                place.arrived_at = now;
            }
        }
    }

    fn is_under_way_to(&self, cpu: Cpu) -> bool {
        let resends = self.places.get(cpu.index()).is_some_and(|place| place.resends != 0);
        resends || [&self.message, &self.held].into_iter().flatten().any(|at| at.contains(&cpu))
    }
}
