//! Checks the arrivals of a block while other CPUs mask its vectors and send them again.

use super::explore;
use crate::bridge_msi::Block;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use shuttle::thread;

/// The vector of the checks.
const BIT: u32 = 4;

/// A block whose line is an edge: the handler must take everything that precedes it.
#[derive(Default)]
struct Machine {
    block: Block,
    status: AtomicU32,
    line: AtomicBool,
    runs: AtomicU32,
    /// Runs of the line's handler that found nothing and were not excused.
    strays: AtomicU32,
}

impl Machine {
    fn raise(&self) {
        self.line.store(true, SeqCst);
    }

    fn send(&self) {
        self.status.fetch_or(BIT, SeqCst);
        self.raise();
    }

    fn mask_and_unmask(&self) {
        self.block.mask(BIT);
        self.block.unmask(BIT);
        if self.block.is_noted(BIT) {
            self.raise();
        }
    }

    fn resend(&self) {
        if self.block.note(BIT) {
            self.block.excuse();
            self.raise();
        }
    }

    /// Runs the line's handler for as long as the line is raised.
    fn handle(&self) {
        while self.line.swap(false, SeqCst) {
            let taken = self.block.take(self.status.swap(0, SeqCst));
            if taken & BIT != 0 {
                self.runs.fetch_add(1, SeqCst);
            } else if !self.block.is_excused() {
                self.strays.fetch_add(1, SeqCst);
            }
        }
    }
}

/// Runs both parties beside the line's handler, then the handler alone. Returns the number of runs
/// of the vector's handler.
fn runs_after(one: fn(&Machine), other: fn(&Machine)) -> u32 {
    let machine = Arc::new(Machine::default());
    let threads = [one, other, Machine::handle].map(|act| {
        let machine = machine.clone();
        thread::spawn(move || act(&machine))
    });
    for thread in threads {
        thread.join().expect("a party panicked");
    }
    machine.handle();
    assert!(!machine.block.is_noted(BIT), "an arrival waits although its vector is unmasked");
    machine.runs.load(SeqCst)
}

#[test]
fn a_mask_loses_no_message() {
    explore(|| assert_eq!(runs_after(Machine::send, Machine::mask_and_unmask), 1));
}

#[test]
fn a_mask_loses_no_resent_message() {
    explore(|| assert_eq!(runs_after(Machine::resend, Machine::mask_and_unmask), 1));
}

#[test]
fn a_late_resend_is_no_stray_interrupt() {
    explore(|| {
        let machine = Arc::new(Machine::default());
        let parties = [Machine::resend, Machine::resend, Machine::resend, Machine::handle];
        let threads = parties.map(|act| {
            let machine = machine.clone();
            thread::spawn(move || act(&machine))
        });
        for thread in threads {
            thread.join().expect("a party panicked");
        }
        machine.handle();
        assert_eq!(machine.strays.load(SeqCst), 0);
    });
}

#[test]
fn a_masked_vectors_message_is_handled_after_unmask() {
    explore(|| {
        let machine = Machine::default();
        machine.block.mask(BIT);
        machine.send();
        machine.handle();
        assert_eq!(machine.runs.load(SeqCst), 0);
        machine.mask_and_unmask();
        machine.handle();
        assert_eq!(machine.runs.load(SeqCst), 1);
    });
}
