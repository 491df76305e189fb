//! Every interleaving of readers and a writer of routes: a route is never seen in halves, and none is missed.
//!
//! The sources are compiled here against a scheduler's atomics; all accesses are sequentially consistent, so that
//! interleavings are executions. Then each safeguard of the algorithm is left out, which must be found.
#![expect(dead_code, reason = "a part of the sources is enough here")]
#![expect(unreachable_pub, reason = "the sources are a library's")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

mod atomic {
    use crate::safeguard::Safeguard;
    use core::cell::Cell;
    use shuttle::sync::mpsc::Receiver;

    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};

    /// The scheduler's. A writer can be made to stop before one of its stores.
    #[derive(Debug)]
    pub(crate) struct AtomicU64(shuttle::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            Self(shuttle::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            assert_eq!(order, Ordering::SeqCst, "an access that is weaker than what is explored");
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            assert_eq!(order, Ordering::SeqCst, "an access that is weaker than what is explored");
            STALL.with(|stall| match stall.take() {
                Some((0, resume)) => resume.recv().unwrap(),
                Some((stores, resume)) => stall.set(Some((stores - 1, resume))),
                None => {}
            });
            self.0.store(value, order);
        }
    }

    shuttle::thread_local! {
        static STALL: Cell<Option<(u32, Receiver<()>)>> = Cell::new(None);
    }

    /// This thread stops before its next store but so many, until it is told to go on.
    pub(crate) fn stall_after(stores: u32, resume: Receiver<()>) {
        STALL.with(|stall| stall.set(Some((stores, resume))));
    }

    std::thread_local! {
        static LEFT_OUT: Cell<Option<Safeguard>> = const { Cell::new(None) };
    }

    pub(crate) fn leave_out(safeguard: Option<Safeguard>) {
        LEFT_OUT.set(safeguard);
    }

    pub(crate) fn is_left_out(safeguard: Safeguard) -> bool {
        LEFT_OUT.get() == Some(safeguard)
    }
}

#[path = "../../src/route.rs"]
mod route;
#[path = "../../src/safeguard.rs"]
mod safeguard;
#[path = "../../src/slot.rs"]
mod slot;
#[path = "../../src/table.rs"]
mod table;

use msi_types::{DeviceId, Gsi, MsiMessage};
use route::{Pin, Route};
use safeguard::Safeguard;
use shuttle::sync::{Arc, mpsc};
use shuttle::thread;
use slot::Slot;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use table::Table;

/// Tries all interleavings; how many there were.
fn explore(scenario: fn()) -> usize {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let counting = move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    };
    shuttle::check_dfs(counting, None);
    executions.load(Relaxed)
}

/// The scenario holds with every safeguard, in at least so many executions, and fails without the named ones.
fn prove(scenario: fn(), at_least: usize, needs: &[Safeguard]) {
    let executions = explore(scenario);
    assert!(executions >= at_least, "only {executions} executions: what is explored?");
    for safeguard in needs {
        atomic::leave_out(Some(*safeguard));
        let outcome = catch_unwind(AssertUnwindSafe(|| explore(scenario)));
        atomic::leave_out(None);
        assert!(outcome.is_err(), "nothing fails without {safeguard:?}");
    }
}

/// Routes that differ in every word.
fn route(number: u32) -> Route {
    let message = MsiMessage { address: u64::from(number) * 0x1000, data: number };
    Route::to_its(DeviceId::new(number), message)
}

#[test]
fn a_route_is_never_seen_in_halves() {
    fn scenario() {
        let slot = Arc::new(Slot::new());
        slot.store(Some(route(1)));
        let writer = thread::spawn({
            let slot = slot.clone();
            move || [2, 3].into_iter().for_each(|number| slot.store(Some(route(number))))
        });
        let seen = slot.load();
        assert!([1, 2, 3].into_iter().any(|number| seen == Some(route(number))), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(slot.load(), Some(route(3)));
    }
    prove(scenario, 500, &[Safeguard::CompareVersion, Safeguard::WriteAside, Safeguard::Sequence]);
}

#[test]
fn a_route_that_is_cleared_and_set_anew_is_seen_whole_or_not_at_all() {
    fn scenario() {
        let slot = Arc::new(Slot::new());
        slot.store(Some(route(1)));
        let writer = thread::spawn({
            let slot = slot.clone();
            move || [None, Some(route(2))].into_iter().for_each(|route| slot.store(route))
        });
        let seen = slot.load();
        assert!([None, Some(route(1)), Some(route(2))].contains(&seen), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(slot.load(), Some(route(2)));
    }
    prove(scenario, 500, &[Safeguard::CompareVersion]);
}

#[test]
fn what_one_reader_has_seen_no_later_reader_misses() {
    fn scenario() {
        let slot = Arc::new(Slot::new());
        slot.store(Some(route(1)));
        let writer = thread::spawn({
            let slot = slot.clone();
            move || slot.store(Some(route(2)))
        });
        let first = slot.load();
        let second = slot.load();
        assert!(first != Some(route(2)) || second == first, "{first:?}, then {second:?}");
        writer.join().unwrap();
    }
    prove(scenario, 100, &[Safeguard::WriteAside]);
}

#[test]
fn a_reader_never_waits_for_a_writer_that_was_stopped() {
    fn stopped<const STORES: u32>() {
        let slot = Arc::new(Slot::new());
        slot.store(Some(route(1)));
        let (resume, resumed) = mpsc::channel();
        let writer = thread::spawn({
            let slot = slot.clone();
            move || {
                atomic::stall_after(STORES, resumed);
                slot.store(Some(route(2)));
            }
        });
        assert_eq!(slot.load(), Some(route(1)));
        resume.send(()).unwrap();
        writer.join().unwrap();
    }
    prove(stopped::<0>, 10, &[]);
    prove(stopped::<1>, 10, &[Safeguard::WriteAside]);
    prove(stopped::<2>, 10, &[Safeguard::WriteAside]);
}

#[test]
fn no_interrupt_is_lost_when_the_first_table_ends_the_identity_mapping() {
    fn scenario() {
        let table = Arc::new(Table::new(4));
        let (gsi, other) = (Gsi::new(1), Gsi::new(2));
        table.set([(gsi, Some(route(3))), (gsi, None)].into_iter());
        let writer = thread::spawn({
            let table = table.clone();
            move || table.set_table([(gsi, Some(route(1))), (other, Some(route(2)))].into_iter())
        });
        let seen = table.route(gsi);
        let pin = Route::Pin(Pin::new(1).unwrap());
        assert!([Some(pin), Some(route(1))].contains(&seen), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(table.route(gsi), Some(route(1)));
        assert_eq!(table.route(Gsi::new(3)), None);
    }
    prove(scenario, 50, &[Safeguard::RoutesFirst, Safeguard::LookAgain]);
}
