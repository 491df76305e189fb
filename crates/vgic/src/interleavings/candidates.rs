//! Scenarios for candidate bitmaps, interrupt words and wake-up words without the rest of the
//! model, small enough to explore every interleaving. The code that connects them mirrors
//! `wired.rs` and `cpu/vcpu.rs`, which `wired_model` checks directly.

use super::machine::Kicks;
use super::std::vec::Vec;
use super::{explore_all, explore_random};
use crate::lpi::Filled;
use crate::wakeup::VcpuWakeup;
use crate::wired::candidates::{Candidates, Look};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::{Interrupt, InterruptWord};
use alloc::sync::Arc;
use msi_types::Cpu;
use shuttle::thread;

/// Two vCPUs, and two edge-triggered interrupts whose candidates share a leaf.
struct SharedLeaf {
    interrupts: [Interrupt; 2],
    candidates: [Candidates; 2],
    wakeup: VcpuWakeup,
    kicks: Arc<Kicks>,
}

fn wired_index(index: usize) -> WiredIndex {
    WiredIndex::new(WiredIndex::COUNT - WiredIndex::SHARED + index).unwrap()
}

impl SharedLeaf {
    fn new() -> Arc<Self> {
        let state = InterruptWord::new().with_edge(true).with_enabled(true);
        let kicks = Kicks::new();
        Arc::new(Self {
            interrupts: [Interrupt::new(state), Interrupt::new(state)],
            candidates: [Candidates::new(), Candidates::new()],
            wakeup: VcpuWakeup::new(2, kicks.clone()).unwrap(),
            kicks,
        })
    }

    /// Notifies the target of a changed interrupt, as `Wired::settle` does.
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

    /// Returns the index of a ready interrupt, as `Vcpu::inputs` does.
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

    /// Acknowledges and ends an interrupt, as `Vcpu::acknowledge` and an EOI do.
    fn handle(&self, cpu: Cpu) -> Option<usize> {
        let index = self.look(cpu)?;
        let taken = self.interrupts[index]
            .try_update(|state| state.ready_at(cpu).then(|| state.acknowledged()));
        taken.map(|_| {
            self.change(index, |state| state.with_active(false));
            index
        })
    }

    /// Prepares to sleep, as `Vcpu::prepare_to_sleep` does. Returns `true` if the vCPU sleeps.
    fn leave(&self, cpu: Cpu) -> bool {
        self.wakeup.words()[cpu.index()].leave_unless(|| self.look(cpu).is_some())
    }

    /// Checks the final state: if an interrupt is ready at the vCPU, the vCPU must find it, and
    /// must be awake or have been kicked.
    fn check(&self, cpu: Cpu, sleeps: bool) {
        let ready = self.interrupts.iter().any(|interrupt| interrupt.state().ready_at(cpu));
        assert_eq!(self.look(cpu).is_some(), ready, "a candidate was lost");
        let kicks = self.kicks.count(cpu);
        assert!(kicks <= 1, "{kicks} kicks for one departure");
        assert!(!(ready && sleeps) || kicks == 1, "the vCPU sleeps despite a ready interrupt");
    }
}

const CPU: Cpu = Cpu::new(0);

fn spawn(
    machine: &Arc<SharedLeaf>,
    act: impl FnOnce(&SharedLeaf) + Send + 'static,
) -> thread::JoinHandle<()> {
    let machine = machine.clone();
    thread::spawn(move || act(&machine))
}

/// Makes the vCPU fall asleep while these interrupts fire.
fn sleeps_while_they_fire(machine: &Arc<SharedLeaf>, firing: &[usize]) {
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
    sleeps_while_they_fire(&SharedLeaf::new(), &[0]);
}

#[test]
fn an_interrupt_wakes_a_vcpu_falling_asleep() {
    explore_all(400, one_fires);
}

fn one_fires_again() {
    let machine = SharedLeaf::new();
    machine.fire(0);
    machine.handle(CPU).unwrap();
    sleeps_while_they_fire(&machine, &[0]);
}

#[test]
fn clearing_a_candidate_keeps_an_interrupt_that_fires_meanwhile() {
    explore_all(20_000, one_fires_again);
}

/// Fires an interrupt whose candidate bit is in the same leaf as a stale bit.
fn a_neighbor_fires() {
    let machine = SharedLeaf::new();
    machine.fire(0);
    machine.handle(CPU).unwrap();
    sleeps_while_they_fire(&machine, &[1]);
}

#[test]
fn an_interrupt_firing_while_its_leaf_is_cleared_is_not_lost() {
    explore_all(20_000, a_neighbor_fires);
}

/// Removes the vCPU's only candidate while the neighboring interrupt becomes a candidate.
fn the_only_one_is_taken() {
    let machine = SharedLeaf::new();
    machine.fire(0);
    let neighbor = spawn(&machine, |machine| machine.fire(1));
    let taken = machine.candidates[CPU.index()].take_only();
    neighbor.join().unwrap();
    let mut left = Vec::new();
    machine.candidates[CPU.index()].visit(|index| {
        left.push(index);
        Look::Ready
    });
    let all: &[_] = &[wired_index(0), wired_index(1)];
    assert_eq!(left, if taken.is_some() { &all[1..] } else { all });
}

#[test]
fn removing_the_only_candidate_keeps_a_new_neighbor() {
    explore_all(100, the_only_one_is_taken);
}

fn two_fire() {
    sleeps_while_they_fire(&SharedLeaf::new(), &[0, 1]);
}

#[test]
fn two_interrupts_kick_a_vcpu_falling_asleep_at_most_once() {
    explore_random(5_000, two_fire);
}

/// A vCPU clears the summary bit of a leaf that it found empty, and that a message has filled
/// since. Meanwhile, a command empties the only other leaf.
fn two_leaves_are_pruned() {
    let bitmap = Arc::new(Filled::new().unwrap());
    let other = bitmap.clone();
    let command = thread::spawn(move || other.clear_other());
    bitmap.unlink();
    command.join().unwrap();
    assert!(bitmap.is_visible(), "a bit above the leaf is clear");
}

#[test]
fn two_threads_that_clear_empty_leaves_hide_no_ready_leaf() {
    explore_all(1_000, two_leaves_are_pruned);
}
