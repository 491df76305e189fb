//! A linked interrupt while it goes into a list register and comes back, is unlinked, linked again,
//! and deactivated by a register: what the hypervisor took of the physical interrupt is deactivated
//! exactly once.

use crate::interrupt::InterruptWord;
use crate::wired::{CPU, LINE, PhysicalInterrupts, Wired, index};
use crate::{Explore, explore, holds};
use gic_arch::IntId;
use gic_arch::ich::ListRegisterState::{self, Active, Invalid, Pending, PendingActive};
use msi_types::{Level, Line};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};

const PHYSICAL: IntId = IntId::new(77);

/// The physical interrupt: is it active?
struct Physical(AtomicBool);

impl Physical {
    fn end(&self) {
        assert!(self.0.swap(false, SeqCst), "it was deactivated twice");
    }
}

impl PhysicalInterrupts for Physical {
    fn level(&self, _: Line, _: IntId) -> Level {
        Level::Low
    }

    fn deactivate(&self, line: Line, physical: IntId) {
        assert_eq!((line, physical), (LINE, PHYSICAL));
        self.end();
    }
}

/// Handling of list registers by the guest.
#[derive(Clone, Copy)]
enum Guest {
    Masks,
    Acknowledges,
    Ends,
}

impl Guest {
    fn leaves(self, filled: ListRegisterState) -> ListRegisterState {
        match (self, filled) {
            (Self::Acknowledges, Pending) => Active,
            (Self::Ends, PendingActive) => Pending,
            (Self::Ends, _) => Invalid,
            (Self::Masks | Self::Acknowledges, _) => filled,
        }
    }
}

struct Machine {
    wired: Wired,
    physical: Arc<Physical>,
}

/// An edge-triggered SPI, linked to a physical interrupt that fired and was taken.
fn fired() -> Arc<Machine> {
    let physical = Arc::new(Physical(AtomicBool::new(true)));
    let wired = Wired::new(InterruptWord::new().with_edge(true).with_enabled(true));
    assert!(wired.serve_physical(physical.clone()).is_ok());
    wired.link(LINE, Some(PHYSICAL)).unwrap();
    wired.pulse();
    Arc::new(Machine { wired, physical })
}

impl Machine {
    /// The vCPU enters and exits once. The hardware deactivates what is linked along with it.
    fn run(&self, guest: Guest) {
        let Some(filled) = self.wired.fill() else { return self.wired.exited() };
        thread::yield_now();
        let now = guest.leaves(filled.state);
        if now == Invalid && filled.physical.is_some() {
            self.physical.end();
        }
        self.wired.fold(CPU, index(), filled, now);
        self.wired.exited();
    }

    /// The physical interrupt can fire again after the guest has ended everything.
    fn check(&self) {
        for _ in 0..3 {
            self.run(Guest::Ends);
        }
        let state = self.wired.state(CPU, index());
        assert!(!state.pending() && !state.active() && !state.physical_active(), "{state:?}");
        assert!(!self.physical.0.load(SeqCst), "it stays active for good");
    }
}

/// The vCPU runs twice, another clears the active state, and the line is unlinked.
fn unlinked(guest: Guest, unlink: fn(&Wired)) {
    let machine = fired();
    let vcpu = {
        let machine = machine.clone();
        thread::spawn(move || [guest, Guest::Acknowledges].map(|guest| machine.run(guest)))
    };
    let other = {
        let machine = machine.clone();
        thread::spawn(move || machine.wired.deactivate())
    };
    unlink(&machine.wired);
    vcpu.join().unwrap();
    other.join().unwrap();
    machine.check();
}

fn unlink(wired: &Wired) {
    wired.link(LINE, None).unwrap();
}

fn unlink_and_link(wired: &Wired) {
    unlink(wired);
    wired.link(LINE, Some(PHYSICAL)).unwrap();
}

#[test]
fn an_unlinked_interrupt_is_deactivated_once() {
    for change in [unlink, unlink_and_link] {
        for guest in [Guest::Masks, Guest::Acknowledges, Guest::Ends] {
            holds(Explore::Random(5_000), move || unlinked(guest, change));
        }
    }
    let mutant = || explore(50_000, || unlinked(Guest::Masks, Wired::unlink_in_two_steps));
    assert!(catch_unwind(AssertUnwindSafe(mutant)).is_err(), "two steps would do as well");
}
