//! Every interleaving of injectors, a vCPU that falls asleep, and a thread that moves an interrupt:
//! no interrupt is lost, and without any one of the safeguards one is.
//!
//! The sources of the shared part are compiled here against a scheduler's atomics. What `wired.rs`
//! and `vcpu.rs` do with them is repeated in a few lines, but for the departure itself; all of it
//! is sequentially consistent, so that interleavings are executions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "a part is enough here")]
#[path = "../lpi_interleavings/atomic.rs"]
mod atomic;
#[path = "../../src/candidates.rs"]
mod candidates;
#[expect(dead_code, reason = "a part is enough here")]
#[expect(unreachable_pub, reason = "the source is a library's")]
#[path = "../../src/heap.rs"]
mod heap;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/interrupt.rs"]
mod interrupt;
mod links;
#[expect(dead_code, reason = "a part is enough here")]
#[expect(unreachable_pub, reason = "the source is a library's")]
#[path = "../../src/progress.rs"]
mod progress;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/safeguard.rs"]
mod safeguard;
#[path = "../../src/set_once.rs"]
mod set_once;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../lpi_interleavings/store_buffer.rs"]
mod store_buffer;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/wakeup.rs"]
mod wakeup;
mod wired;
#[expect(dead_code, reason = "a part is enough here")]
#[path = "../../src/wired_index.rs"]
mod wired_index;

use atomic::leave_out;
use candidates::{Candidates, Look};
use interrupt::{Interrupt, InterruptWord};
use msi_types::{Cpu, Kick, Level};
use safeguard::Safeguard;
use shuttle::scheduler::{DfsScheduler, RandomScheduler};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;
use shuttle::{Config, FailurePersistence};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wakeup::VcpuWakeup;
use wired_index::WiredIndex;

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
    wakeup: VcpuWakeup,
    kicks: Arc<Kicks>,
}

fn wired_index(index: usize) -> WiredIndex {
    WiredIndex::shared(index).unwrap()
}

impl Machine {
    fn new() -> Arc<Self> {
        let state = InterruptWord::new().with_edge(true).with_enabled(true);
        let kicks = Arc::new(Kicks([AtomicUsize::new(0), AtomicUsize::new(0)]));
        Arc::new(Self {
            interrupts: [Interrupt::new(state), Interrupt::new(state)],
            candidates: [Candidates::new(), Candidates::new()],
            wakeup: VcpuWakeup::new(2, kicks.clone()).unwrap(),
            kicks,
        })
    }

    /// As `Wired::settle`.
    fn settle(&self, index: usize, state: InterruptWord) {
        if let Some(target) = state.target().filter(|_| state.ready()) {
            self.candidates[target.index()].set(wired_index(index));
            self.wakeup.kick(target);
        }
    }

    fn change(&self, index: usize, change: impl Fn(InterruptWord) -> InterruptWord) {
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
        let taken = self.interrupts[index]
            .try_update(|state| state.ready_at(cpu).then(|| state.acknowledged()));
        taken.map(|_| {
            self.change(index, |state| state.with_active(false));
            index
        })
    }

    /// As `Vcpu::prepare_to_sleep`: does it sleep?
    fn leave(&self, cpu: Cpu) -> bool {
        self.wakeup.leave_unless(cpu, || self.look(cpu).is_some())
    }

    /// After everything: what is ready at a vCPU is found there, and the vCPU is awake or was
    /// kicked.
    fn check(&self, cpu: Cpu, sleeps: bool) {
        let ready = self.interrupts.iter().any(|interrupt| interrupt.state().ready_at(cpu));
        assert_eq!(self.look(cpu).is_some(), ready, "a candidate was lost");
        let kicks = self.kicks.0[cpu.index()].load(SeqCst);
        assert!(kicks <= 1, "{kicks} kicks for one departure");
        assert!(!(ready && sleeps) || kicks == 1, "the vCPU sleeps over an interrupt");
    }
}

/// The interleavings to try.
#[derive(Clone, Copy)]
enum Explore {
    /// All of them: at least this many.
    All(usize),
    /// There are too many: this many at random.
    Random(usize),
}

type Scenario = fn();

/// It holds, with every safeguard in place.
fn holds(how: Explore, scenario: impl Fn() + Send + Sync + 'static) {
    leave_out(None);
    match how {
        Explore::All(expected) => {
            let executions =
                shuttle::Runner::new(DfsScheduler::new(None, false), config()).run(scenario);
            assert!(executions >= expected, "only {executions} executions: what is explored?");
        }
        Explore::Random(executions) => explore(executions, scenario),
    }
}

/// It does not hold without this safeguard.
fn needs(safeguard: Safeguard, scenario: Scenario) {
    leave_out(Some(safeguard));
    let found = catch_unwind(AssertUnwindSafe(|| explore(50_000, scenario))).is_err();
    leave_out(None);
    assert!(found, "nothing goes wrong without {safeguard:?}");
}

fn explore(executions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    shuttle::Runner::new(RandomScheduler::new_from_seed(1, executions), config()).run(scenario);
}

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config
}

const CPU: Cpu = Cpu::new(0);
const OTHER: Cpu = Cpu::new(1);

fn spawn(
    machine: &Arc<Machine>,
    act: impl FnOnce(&Machine) + Send + 'static,
) -> thread::JoinHandle<()> {
    let machine = machine.clone();
    thread::spawn(move || act(&machine))
}

/// The vCPU falls asleep while these interrupts fire.
fn sleeps_while_they_fire(machine: &Arc<Machine>, firing: &[usize]) {
    let injectors: Vec<_> = firing
        .iter()
        .copied()
        .map(|index| spawn(machine, move |machine| machine.fire(index)))
        .collect();
    let sleeps = machine.leave(CPU);
    for injector in injectors {
        injector.join().unwrap();
    }
    machine.check(CPU, sleeps);
}

fn one_fires() {
    sleeps_while_they_fire(&Machine::new(), &[0]);
}

#[test]
fn an_interrupt_wakes_a_vcpu_falling_asleep() {
    holds(Explore::All(400), one_fires);
    needs(Safeguard::LeaveFirst, one_fires);
}

fn one_fires_again() {
    let machine = Machine::new();
    machine.fire(0);
    machine.handle(CPU).unwrap();
    sleeps_while_they_fire(&machine, &[0]);
}

#[test]
fn a_forgotten_candidate_is_not_lost() {
    holds(Explore::All(20_000), one_fires_again);
    needs(Safeguard::LookAgain, one_fires_again);
}

/// Its candidate is in the leaf of one that is stale.
fn a_neighbour_fires() {
    let machine = Machine::new();
    machine.fire(0);
    machine.handle(CPU).unwrap();
    sleeps_while_they_fire(&machine, &[1]);
}

#[test]
fn a_leaf_that_is_being_forgotten_is_not_lost() {
    holds(Explore::All(20_000), a_neighbour_fires);
    needs(Safeguard::RecheckLeaf, a_neighbour_fires);
}

fn two_fire() {
    sleeps_while_they_fire(&Machine::new(), &[0, 1]);
}

#[test]
fn two_injectors_kick_once() {
    holds(Explore::Random(50_000), two_fire);
    needs(Safeguard::OneKick, two_fire);
}

fn one_fires_while_it_is_handled() {
    let machine = Machine::new();
    machine.fire(0);
    let injector = spawn(&machine, |machine| machine.fire(0));
    let handled = machine.handle(CPU).is_some();
    let sleeps = machine.leave(CPU);
    injector.join().unwrap();
    assert!(handled);
    machine.check(CPU, sleeps);
}

#[test]
fn an_interrupt_firing_at_its_ack_stays_pending() {
    holds(Explore::Random(50_000), one_fires_while_it_is_handled);
}

/// Two devices share an interrupt. Each writes its number and sends an edge by `fire`; the vCPU
/// reads both numbers whenever it handles the interrupt.
fn two_fire_one(fire: fn(&Machine)) {
    let machine = Machine::new();
    let sent = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let devices = [0, 1].map(|device| {
        let sent = sent.clone();
        spawn(&machine, move |machine| {
            sent[device].store(1, SeqCst);
            fire(machine);
        })
    });
    let mut seen = [0; 2];
    let mut handle = || {
        let handled = machine.handle(CPU).is_some();
        if handled {
            seen = [0, 1].map(|device| sent[device].load(SeqCst));
        }
        handled
    };
    for _ in 0..3 {
        handle();
        thread::yield_now();
    }
    for device in devices {
        device.join().unwrap();
    }
    while handle() {}
    assert_eq!(seen, [1, 1], "an edge was swallowed");
}

fn two_pulse_one() {
    two_fire_one(|machine| machine.change(0, InterruptWord::pulsed));
}

/// The same edge as two operations.
fn two_raise_and_lower_one() {
    two_fire_one(|machine| {
        machine.change(0, |state| state.driven(Level::High));
        machine.change(0, |state| state.driven(Level::Low));
    });
}

#[test]
fn of_two_pulses_none_swallows_the_other() {
    holds(Explore::Random(50_000), two_pulse_one);
    let mutant = || explore(50_000, two_raise_and_lower_one);
    assert!(catch_unwind(AssertUnwindSafe(mutant)).is_err(), "two operations would do as well");
}

fn one_moves_while_it_fires() {
    let machine = Machine::new();
    machine.wakeup.leave(OTHER);
    let injector = spawn(&machine, |machine| machine.fire(0));
    let router = spawn(&machine, |machine| machine.route(0, 1));
    let handled = machine.handle(CPU).is_some();
    injector.join().unwrap();
    router.join().unwrap();
    let there = machine.interrupts[0].state().ready_at(OTHER);
    assert_ne!(handled, there, "once, at one place");
    machine.check(OTHER, true);
}

#[test]
fn a_moving_interrupt_wakes_only_its_new_target() {
    holds(Explore::Random(50_000), one_moves_while_it_fires);
}
