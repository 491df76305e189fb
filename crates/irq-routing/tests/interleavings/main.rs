//! Every interleaving of readers and a writer of routes: a route is never seen in halves, and none is missed. And of a
//! device that sends by a vector and a guest that masks it: no message is lost, nor sent after the mask.
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

    use shuttle::sync::atomic::Ordering;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};

    /// The scheduler's. A writer can be made to stop before one of its stores.
    #[derive(Debug)]
    pub(crate) struct AtomicU64(shuttle::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            Self(shuttle::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            assert_eq!(order, SeqCst, "an access that is weaker than what is explored");
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            assert_eq!(order, SeqCst, "an access that is weaker than what is explored");
            STALL.with(|stall| match stall.take() {
                Some((0, resume)) => resume.recv().unwrap(),
                Some((stores, resume)) => stall.set(Some((stores - 1, resume))),
                None => {}
            });
            self.0.store(value, order);
        }
    }

    impl AtomicU64 {
        pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
            assert_eq!(order, SeqCst, "an access that is weaker than what is explored");
            self.0.swap(value, order)
        }

        pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            assert_eq!(order, SeqCst, "an access that is weaker than what is explored");
            self.0.fetch_or(value, order)
        }

        pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            assert_eq!(order, SeqCst, "an access that is weaker than what is explored");
            self.0.fetch_and(value, order)
        }

        pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            assert_eq!(order, SeqCst, "an access that is weaker than what is explored");
            self.0.fetch_sub(value, order)
        }

        pub(crate) fn compare_exchange(
            &self,
            old: u64,
            new: u64,
            order: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let orders = (order, failure);
            let explored = (SeqCst, SeqCst);
            assert_eq!(orders, explored, "an access that is weaker than what is explored");
            self.0.compare_exchange(old, new, order, failure)
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

mod lock {
    use shuttle::sync::{Condvar, Mutex};

    /// As `lock.rs` with an operating system.
    #[derive(Debug)]
    pub(crate) struct WaitQueue {
        waiting: Mutex<()>,
        made: Condvar,
    }

    impl Default for WaitQueue {
        fn default() -> Self {
            Self { waiting: Mutex::new(()), made: Condvar::new() }
        }
    }

    impl WaitQueue {
        pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
            let mut waiting = self.waiting.lock().unwrap();
            while !done() {
                waiting = self.made.wait(waiting).unwrap();
            }
        }

        pub(crate) fn wake(&self) {
            drop(self.waiting.lock().unwrap());
            self.made.notify_all();
        }
    }
}

#[path = "../../src/msix/vector.rs"]
mod vector;

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
use vector::{Entered, Vector};

/// Choice of interleavings.
#[derive(Clone, Copy)]
enum Explore {
    /// All: at least so many.
    All(usize),
    /// So many at random, as a thread waits for another.
    Random(usize),
}

/// Tries interleavings; how many there were.
fn explore(how: Explore, scenario: fn()) -> usize {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let counting = move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    };
    match how {
        Explore::All(_) => shuttle::check_dfs(counting, None),
        Explore::Random(count) => shuttle::check_random(counting, count),
    }
    executions.load(Relaxed)
}

/// The scenario holds with every safeguard, and fails without the named ones.
fn prove(scenario: fn(), how: Explore, needs: &[Safeguard]) {
    let executions = explore(how, scenario);
    let (Explore::All(at_least) | Explore::Random(at_least)) = how;
    assert!(executions >= at_least, "only {executions} executions: what is explored?");
    for safeguard in needs {
        atomic::leave_out(Some(*safeguard));
        let outcome = catch_unwind(AssertUnwindSafe(|| explore(how, scenario)));
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
    prove(
        scenario,
        Explore::All(500),
        &[Safeguard::CompareVersion, Safeguard::WriteAside, Safeguard::Sequence],
    );
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
    prove(scenario, Explore::All(500), &[Safeguard::CompareVersion]);
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
    prove(scenario, Explore::All(100), &[Safeguard::WriteAside]);
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
    prove(stopped::<0>, Explore::All(10), &[]);
    prove(stopped::<1>, Explore::All(10), &[Safeguard::WriteAside]);
    prove(stopped::<2>, Explore::All(10), &[Safeguard::WriteAside]);
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
    prove(scenario, Explore::All(50), &[Safeguard::RoutesFirst, Safeguard::LookAgain]);
}

/// A vector of a table, with what its GSI is used for: message 1 is its own, 2 is the GSI's next owner's.
struct Function {
    vector: Vector,
    idle: lock::WaitQueue,
    owner: shuttle::sync::atomic::AtomicU32,
    sent: shuttle::sync::atomic::AtomicU32,
}

const GSI: Gsi = Gsi::new(9);

impl Function {
    fn new() -> Arc<Self> {
        let zero = || shuttle::sync::atomic::AtomicU32::new(0);
        let idle = lock::WaitQueue::default();
        Arc::new(Self { vector: Vector::new(), idle, owner: zero(), sent: zero() })
    }

    /// As `MsixTable::signal`.
    fn signal(&self) {
        if let Entered::Open(gsi) = self.vector.enter() {
            assert_eq!(gsi, GSI);
            assert_eq!(self.owner.load(atomic::SeqCst), 1, "somebody else's message is sent");
            self.sent.fetch_add(1, atomic::SeqCst);
            self.vector.leave(&self.idle);
        }
    }

    /// As `MsixTable::open_routed`.
    fn unmask(&self) {
        self.owner.store(1, atomic::SeqCst);
        if self.vector.open(GSI) {
            self.signal();
        }
    }

    fn sent(&self) -> u32 {
        self.sent.load(atomic::SeqCst)
    }
}

#[test]
fn a_message_that_meets_an_unmask_is_sent_once_and_leaves_nothing_pending() {
    fn scenario() {
        let function = Function::new();
        let device = thread::spawn({
            let function = function.clone();
            move || function.signal()
        });
        function.unmask();
        device.join().unwrap();
        assert_eq!((function.sent(), function.vector.is_pending()), (1, false));
    }
    prove(scenario, Explore::All(10), &[Safeguard::HoldByExchange]);
}

#[test]
fn after_a_mask_the_gsi_can_be_another_vectors() {
    fn scenario() {
        let function = Function::new();
        function.unmask();
        let devices = [(), ()].map(|()| {
            let function = function.clone();
            thread::spawn(move || function.signal())
        });
        function.vector.close(&function.idle);
        let sent = function.sent();
        function.owner.store(2, atomic::SeqCst);
        for device in devices {
            device.join().unwrap();
        }
        assert_eq!(function.sent(), sent, "a message was sent after the mask");
        assert!(sent == 2 || function.vector.is_pending());
    }
    let needs = [Safeguard::AwaitSenders, Safeguard::WakeCloser];
    prove(scenario, Explore::Random(5_000), &needs);
}

#[test]
fn no_message_is_lost_while_a_vector_is_masked_and_unmasked() {
    fn scenario() {
        let function = Function::new();
        function.unmask();
        let device = thread::spawn({
            let function = function.clone();
            move || {
                function.signal();
                function.signal();
            }
        });
        function.vector.close(&function.idle);
        let before = function.sent();
        function.unmask();
        device.join().unwrap();
        // Held messages are one; what came after the mask is not among those before.
        assert!(function.sent() > before || before == 2, "{} sent, {before} before", function.sent());
        assert!(!function.vector.is_pending());
    }
    prove(scenario, Explore::Random(5_000), &[Safeguard::HoldByExchange]);
}
