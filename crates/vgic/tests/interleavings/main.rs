//! Every interleaving of injectors, a vCPU that falls asleep, and whoever moves an interrupt: nothing is lost.
//!
//! The sources of the shared part are compiled here against a scheduler's atomics. What `wired.rs` and `vcpu.rs` do
//! with them is repeated in a few lines, but for the departure itself; all of it is sequentially consistent, so that interleavings are executions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/attention.rs"]
mod attention;
#[path = "../../src/candidates.rs"]
mod candidates;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/interrupt.rs"]
mod interrupt;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/slot.rs"]
mod slot;

use attention::Attention;
use candidates::{Candidates, Look};
use interrupt::{Interrupt, State};
use msi_types::{Cpu, Kick};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;
use slot::Slot;

/// Counts kicks.
struct Kicks([AtomicUsize; 2]);

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.0[cpu.index()].fetch_add(1, SeqCst);
    }
}

/// Two vCPUs, and two edge interrupts whose candidates share a leaf.
struct Machine {
    interrupts: [Interrupt; 2],
    candidates: [Candidates; 2],
    attention: Attention,
    kicks: Arc<Kicks>,
}

fn slot(index: usize) -> Slot {
    Slot::shared(index).unwrap()
}

impl Machine {
    fn new() -> Arc<Self> {
        let state = State::new().with_edge(true).with_enabled(true);
        let kicks = Arc::new(Kicks([AtomicUsize::new(0), AtomicUsize::new(0)]));
        Arc::new(Self {
            interrupts: [Interrupt::new(state), Interrupt::new(state)],
            candidates: [Candidates::new(), Candidates::new()],
            attention: Attention::new(2, kicks.clone()),
            kicks,
        })
    }

    /// As `Wired::settle`.
    fn settle(&self, index: usize, state: State) {
        if let Some(target) = state.target().filter(|_| state.ready()) {
            self.candidates[target.index()].set(slot(index));
            self.attention.notify(target);
        }
    }

    fn change(&self, index: usize, change: impl Fn(State) -> State) {
        let (_, new) = self.interrupts[index].update(change);
        self.settle(index, new);
    }

    fn fire(&self, index: usize) {
        self.change(index, |state| state.with_latch(true));
    }

    fn route(&self, index: usize, target: u16) {
        self.change(index, |state| state.with_target_index(target));
    }

    /// As `Vcpu::inputs`: what is ready.
    fn look(&self, cpu: Cpu) -> Option<usize> {
        let mut found = None;
        self.candidates[cpu.index()].visit(|candidate| {
            let index = candidate.shared_index().unwrap();
            if self.interrupts[index].state().ready_at(cpu) {
                found = Some(index);
                Look::Ready
            } else {
                Look::Stale
            }
        });
        found
    }

    /// As `Vcpu::acknowledge` and an EOI.
    fn handle(&self, cpu: Cpu) -> Option<usize> {
        let index = self.look(cpu)?;
        let taken =
            self.interrupts[index].try_update(|state| state.ready_at(cpu).then(|| state.acknowledged()));
        taken.map(|_| {
            self.change(index, |state| state.with_active(false));
            index
        })
    }

    /// As `Vcpu::prepare_to_sleep`: does it sleep?
    fn leave(&self, cpu: Cpu) -> bool {
        self.attention.leave_unless(cpu, || self.look(cpu).is_some())
    }

    /// After everything: what is ready at a vCPU is found there, and the vCPU is awake or was kicked.
    fn check(&self, cpu: Cpu, sleeps: bool) {
        let ready = self.interrupts.iter().any(|interrupt| interrupt.state().ready_at(cpu));
        assert_eq!(self.look(cpu).is_some(), ready, "a candidate was lost");
        let kicks = self.kicks.0[cpu.index()].load(SeqCst);
        assert!(kicks <= 1, "{kicks} kicks for one departure");
        assert!(!(ready && sleeps) || kicks == 1, "the vCPU sleeps over an interrupt");
    }
}

/// Which interleavings to try.
#[derive(Clone, Copy)]
enum Explore {
    /// All of them: this many.
    All(usize),
    /// There are too many: this many at random.
    Random(usize),
}

fn explore(how: Explore, test: impl Fn() + Send + Sync + 'static) {
    match how {
        Explore::All(expected) => {
            let executions = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counted = executions.clone();
            let counting = move || {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                test();
            };
            shuttle::check_dfs(counting, None);
            let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
            assert!(executions >= expected, "only {executions} executions: what is explored?");
        }
        Explore::Random(executions) => shuttle::check_random(test, executions),
    }
}

const CPU: Cpu = Cpu::new(0);
const OTHER: Cpu = Cpu::new(1);

#[test]
fn an_interrupt_that_arrives_while_the_vcpu_falls_asleep_wakes_it() {
    explore(Explore::All(400), || {
        let machine = Machine::new();
        let injector = thread::spawn({
            let machine = machine.clone();
            move || machine.fire(0)
        });
        let sleeps = machine.leave(CPU);
        injector.join().unwrap();
        machine.check(CPU, sleeps);
    });
}

#[test]
fn a_candidate_that_is_being_forgotten_is_not_lost() {
    explore(Explore::All(20_000), || {
        let machine = Machine::new();
        machine.fire(0);
        machine.handle(CPU).unwrap();
        let injector = thread::spawn({
            let machine = machine.clone();
            move || machine.fire(0)
        });
        let sleeps = machine.leave(CPU);
        injector.join().unwrap();
        machine.check(CPU, sleeps);
    });
}

#[test]
fn a_leaf_that_is_being_forgotten_is_not_lost() {
    explore(Explore::All(20_000), || {
        let machine = Machine::new();
        machine.fire(0);
        machine.handle(CPU).unwrap();
        let injector = thread::spawn({
            let machine = machine.clone();
            move || machine.fire(1)
        });
        let sleeps = machine.leave(CPU);
        injector.join().unwrap();
        machine.check(CPU, sleeps);
    });
}

#[test]
fn two_injectors_kick_once() {
    explore(Explore::Random(50_000), || {
        let machine = Machine::new();
        let injectors = [0, 1].map(|index| {
            let machine = machine.clone();
            thread::spawn(move || machine.fire(index))
        });
        let sleeps = machine.leave(CPU);
        for injector in injectors {
            injector.join().unwrap();
        }
        machine.check(CPU, sleeps);
    });
}

#[test]
fn an_interrupt_that_is_acknowledged_while_it_fires_again_stays_pending() {
    explore(Explore::Random(50_000), || {
        let machine = Machine::new();
        machine.fire(0);
        let injector = thread::spawn({
            let machine = machine.clone();
            move || machine.fire(0)
        });
        let handled = machine.handle(CPU).is_some();
        let sleeps = machine.leave(CPU);
        injector.join().unwrap();
        assert!(handled);
        machine.check(CPU, sleeps);
    });
}

#[test]
fn an_interrupt_that_moves_while_it_fires_wakes_exactly_its_new_target() {
    explore(Explore::Random(50_000), || {
        let machine = Machine::new();
        machine.attention.leave(OTHER);
        let injector = thread::spawn({
            let machine = machine.clone();
            move || machine.fire(0)
        });
        let router = thread::spawn({
            let machine = machine.clone();
            move || machine.route(0, 1)
        });
        let handled = machine.handle(CPU).is_some();
        injector.join().unwrap();
        router.join().unwrap();
        let there = machine.interrupts[0].state().ready_at(OTHER);
        assert_ne!(handled, there, "once, at one place");
        machine.check(OTHER, true);
    });
}
