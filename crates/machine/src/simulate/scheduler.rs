//! Decides what happens next: a device sends, or a CPU takes a step.

use super::TraceEvent;
use crate::cpu::{CpuCore, Sleepers};
use crate::lock::lock;
use crate::platform::{Interleave, Moment};
use crate::rng::Rng;
use crate::run::RunOptions;
use crate::system::{Cpus, System, Work};
use msi_types::Cpu;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// At one in so many moments a driver is overtaken.
const OVERTAKE: usize = 6;

/// The scheduler. All on one thread; the locks are for the seams' sake, and never held while something happens.
pub(super) struct Scheduler {
    cores: Vec<Arc<CpuCore>>,
    sleepers: Arc<Sleepers>,
    messages: u32,
    /// Known once the drivers are up: before, nobody sends.
    system: OnceLock<Weak<System>>,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    asleep: Vec<bool>,
    /// Vectors that have messages left.
    left: Vec<Remaining>,
    trace: Vec<TraceEvent>,
}

/// What a vector has to send still.
#[derive(Clone, Copy)]
struct Remaining {
    device: usize,
    vector: usize,
    messages: u32,
    /// Not before the last one was handled: if that is lost, nothing hides it.
    patient: bool,
}

impl Scheduler {
    pub(super) fn new(cores: Vec<Arc<CpuCore>>, sleepers: Arc<Sleepers>, options: &RunOptions) -> Self {
        let state = State {
            rng: Rng::new(options.seed, 0),
            asleep: vec![false; cores.len()],
            left: Vec::new(),
            trace: Vec::new(),
        };
        Self {
            cores,
            sleepers,
            messages: options.messages,
            system: OnceLock::new(),
            state: Mutex::new(state),
        }
    }

    /// From now on, devices send.
    pub(super) fn take_over(&self, system: &Arc<System>) {
        let vectors = system.units.iter().enumerate().flat_map(|(device, unit)| {
            let messages = self.messages;
            (0..unit.vectors().len()).map(move |vector| Remaining { device, vector, messages, patient: true })
        });
        lock(&self.state).left = vectors.filter(|left| left.messages != 0).collect();
        // There is one system for each scheduler.
        let _ = self.system.set(Arc::downgrade(system));
    }

    pub(super) fn has_more_to_send(&self) -> bool {
        !lock(&self.state).left.is_empty()
    }

    /// One device sends, or one CPU takes a step.
    pub(super) fn step(&self) {
        if self.draw(3) == 0 { self.send() } else { self.advance(self.any_cpu()) }
    }

    /// All CPUs go on until none has anything to do.
    pub(super) fn settle(&self) {
        loop {
            let before = self.events();
            for cpu in 0..self.cores.len() {
                self.advance(cpu);
            }
            if self.events() == before {
                return;
            }
        }
    }

    /// How much has happened.
    pub(super) fn events(&self) -> usize {
        lock(&self.state).trace.len()
    }

    pub(super) fn record(&self, event: TraceEvent) {
        lock(&self.state).trace.push(event);
    }

    pub(super) fn trace(&self) -> Vec<TraceEvent> {
        std::mem::take(&mut lock(&self.state).trace)
    }

    fn send(&self) {
        let Some(system) = self.system.get().and_then(Weak::upgrade) else { return };
        let (chosen, Remaining { device, vector, patient, .. }) = {
            let State { rng, left, .. } = &mut *lock(&self.state);
            let chosen = rng.below(left.len());
            let Some(remaining) = left.get(chosen) else { return };
            (chosen, *remaining)
        };
        let Some(unit) = system.units.get(device) else { return };
        let Some(books) = unit.vectors().get(vector) else { return };
        if (patient && !books.ledger.is_settled()) || !unit.send(books) {
            return;
        }
        self.record(TraceEvent::Sent { device, vector });
        let State { rng, left, .. } = &mut *lock(&self.state);
        if let Some(remaining) = left.get_mut(chosen) {
            remaining.messages -= 1;
            remaining.patient = remaining.messages == 1 || rng.one_in(2);
        }
        left.retain(|remaining| remaining.messages != 0);
    }

    /// A CPU wakes, takes an interrupt, or goes to sleep.
    fn advance(&self, index: usize) {
        let Some(core) = self.cores.get(index) else { return };
        let cpu = Cpu::new(u32::try_from(index).unwrap_or(u32::MAX));
        if self.is_asleep(index) {
            if self.sleepers.answer(cpu) {
                core.woken();
                self.set_asleep(index, false);
                self.record(TraceEvent::Woke { cpu });
            }
        } else if core.take_one() {
            self.record(TraceEvent::Took { cpu });
        } else if core.may_sleep() {
            self.set_asleep(index, true);
            self.record(TraceEvent::Slept { cpu });
        }
    }

    fn is_asleep(&self, index: usize) -> bool {
        lock(&self.state).asleep.get(index).copied().unwrap_or(true)
    }

    fn set_asleep(&self, index: usize, asleep: bool) {
        if let Some(place) = lock(&self.state).asleep.get_mut(index) {
            *place = asleep;
        }
    }

    fn any_cpu(&self) -> usize {
        self.draw(self.cores.len())
    }

    fn draw(&self, bound: usize) -> usize {
        lock(&self.state).rng.below(bound)
    }
}

impl Interleave for Scheduler {
    fn at(&self, moment: Moment) {
        if self.system.get().is_none() || self.draw(OVERTAKE) != 0 {
            return;
        }
        match moment {
            Moment::Unmasked => self.step(),
            // Whoever masked interrupts here may hold a lock that a trap would take.
            Moment::Masked => self.send(),
        }
    }
}

impl Cpus for Scheduler {
    fn count(&self) -> usize {
        self.cores.len()
    }

    fn run_on(&self, cpu: Cpu, work: Work) {
        let Some(core) = self.cores.get(cpu.index()) else { return };
        if self.is_asleep(cpu.index()) {
            core.woken();
            self.set_asleep(cpu.index(), false);
        }
        work(core);
    }
}
