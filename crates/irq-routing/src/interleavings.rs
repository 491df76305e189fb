//! Checks of the lock-free parts under a scheduler that explores interleavings. These tests are
//! compiled only with `--cfg shuttle`; `cargo xtask test --only interleavings` runs them.
//!
//! The checks are meant to show that routes are never torn or missed, that messages are never lost
//! or sent after a mask, and that a level is never lost or asserted forever. Checks that call
//! [`explore_all`] try every interleaving of their scenario. Checks that call [`explore_random`] or
//! [`explore`] try a sample of as many interleavings as the call states, and ten times as many in
//! a long run, other ones each time. See `interleavings/mutants.txt` for the faults that they must
//! find, and [`sync`](crate::sync) for the accesses that the scheduler does not know.

#[cfg(all(
    feature = "kvm",
    target_os = "linux",
    any(target_arch = "aarch64", target_arch = "x86_64")
))]
mod hand_over;
#[cfg(target_os = "linux")]
mod levels;
#[cfg(all(
    feature = "kvm",
    target_os = "linux",
    any(target_arch = "aarch64", target_arch = "x86_64")
))]
mod pins;
mod translations;
mod virtio;

use crate::lock::WaitQueue;
use crate::msix::vector::{Entered, MsixVector};
use crate::msix::{BusMaster, MsixTable};
use crate::route::{Pin, Route, RoutedMessage, Sender};
use crate::route_latch::RouteLatch;
use crate::sync::SeqCst;
use crate::table::Table;
use crate::{MessageSink, SignalError};
use msi_types::{Delivery, DeviceId, Gsi, MsiMessage};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicU32;
use shuttle::{Config, MaxSteps, Runner, thread};

/// Maximum number of steps in an execution. An execution exceeds this limit if a thread waits for
/// another one that has stopped.
const MOST_STEPS: usize = 1000;

/// Explores every interleaving of `scenario`. Asserts that at least `at_least` interleavings exist,
/// so that we notice if a scenario becomes trivial.
fn explore_all(at_least: usize, scenario: fn()) {
    let executions = Runner::new(DfsScheduler::new(None, false), config()).run(scenario);
    assert!(executions >= at_least, "only {executions} executions, too few");
}

/// Explores `count` random interleavings of `scenario`, or ten times as many in a long run.
/// Intended for scenarios in which threads wait for each other.
fn explore_random(count: usize, scenario: fn()) {
    Runner::new(RandomScheduler::new_from_seed(1, sample(count)), config()).run(scenario);
}

/// Explores `count` random interleavings of `scenario`, and as many with few thread switches (PCT,
/// depth 3). A long run explores ten times as many.
fn explore(count: usize, scenario: fn()) {
    explore_random(count, scenario);
    Runner::new(PctScheduler::new_from_seed(2, 3, sample(count)), config()).run(scenario);
}

/// Returns the number of executions for a sample that has `count` in an ordinary run.
fn sample(count: usize) -> usize {
    if std::env::var_os("DOORBELL_LONG").is_some() { 10 * count } else { count }
}

fn config() -> Config {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config
}

/// Returns a message that differs from all others in every word.
fn numbered(number: u32) -> RoutedMessage {
    let message = MsiMessage { address: u64::from(number) * 0x1000, data: number };
    RoutedMessage { sender: Sender::Device(DeviceId::new(number)), message }
}

fn route(number: u32) -> Route {
    Route::Message(numbered(number))
}

#[test]
fn a_concurrent_read_never_returns_a_torn_route() {
    fn scenario() {
        let latch = Arc::new(RouteLatch::new());
        latch.store(Some(route(1)));
        let writer = thread::spawn({
            let latch = latch.clone();
            move || [2, 3].into_iter().for_each(|number| latch.store(Some(route(number))))
        });
        let seen = latch.load();
        assert!([1, 2, 3].into_iter().any(|number| seen == Some(route(number))), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(latch.load(), Some(route(3)));
    }
    explore_all(500, scenario);
}

#[test]
fn a_read_during_a_clear_never_returns_a_torn_route() {
    fn scenario() {
        let latch = Arc::new(RouteLatch::new());
        latch.store(Some(route(1)));
        let writer = thread::spawn({
            let latch = latch.clone();
            move || [None, Some(route(2))].into_iter().for_each(|route| latch.store(route))
        });
        let seen = latch.load();
        assert!([None, Some(route(1)), Some(route(2))].contains(&seen), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(latch.load(), Some(route(2)));
    }
    explore_all(500, scenario);
}

#[test]
fn a_later_read_never_returns_an_older_route() {
    fn scenario() {
        let latch = Arc::new(RouteLatch::new());
        latch.store(Some(route(1)));
        let writer = thread::spawn({
            let latch = latch.clone();
            move || latch.store(Some(route(2)))
        });
        let first = latch.load();
        let second = latch.load();
        assert!(first != Some(route(2)) || second == first, "{first:?}, then {second:?}");
        writer.join().unwrap();
    }
    explore_all(100, scenario);
}

#[test]
fn replacing_the_identity_routes_leaves_no_gsi_unrouted() {
    fn scenario() {
        let table = Arc::new(Table::new(4, 4));
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
    explore_all(50, scenario);
}

/// A function with a single vector, and the number of the vector's current message.
struct Function {
    vector: MsixVector,
    idle: WaitQueue,
    current: AtomicU32,
    sent: AtomicU32,
}

impl Function {
    fn new() -> Arc<Self> {
        let zero = || AtomicU32::new(0);
        let idle = WaitQueue::default();
        Arc::new(Self { vector: MsixVector::new(), idle, current: zero(), sent: zero() })
    }

    /// Mirrors `MsixTable::signal`.
    fn signal(&self) {
        if let Entered::Open(message) = self.vector.enter() {
            assert_eq!(message, numbered(self.current.load(SeqCst)), "torn or outdated");
            self.sent.fetch_add(1, SeqCst);
            self.vector.leave(&self.idle);
        }
    }

    /// Opens the vector as `MsixTable::apply` does.
    fn unmask(&self, number: u32) {
        self.current.store(number, SeqCst);
        if self.vector.open(numbered(number)) {
            self.signal();
        }
    }

    fn sent(&self) -> u32 {
        self.sent.load(SeqCst)
    }
}

#[test]
fn a_message_during_an_unmask_is_sent_once() {
    fn scenario() {
        let function = Function::new();
        let device = thread::spawn({
            let function = function.clone();
            move || function.signal()
        });
        function.unmask(1);
        device.join().unwrap();
        assert_eq!((function.sent(), function.vector.is_pending()), (1, false));
    }
    explore_all(10, scenario);
}

#[test]
fn no_message_is_sent_after_a_mask() {
    fn scenario() {
        let function = Function::new();
        function.unmask(1);
        let devices = [(), ()].map(|()| {
            let function = function.clone();
            thread::spawn(move || function.signal())
        });
        function.vector.close(&function.idle);
        let sent = function.sent();
        function.current.store(2, SeqCst);
        for device in devices {
            device.join().unwrap();
        }
        assert_eq!(function.sent(), sent, "a message was sent after the mask");
        assert!(sent == 2 || function.vector.is_pending());
    }
    explore_random(5_000, scenario);
}

#[test]
fn masking_and_unmasking_loses_no_message() {
    fn scenario() {
        let function = Function::new();
        function.unmask(1);
        let device = thread::spawn({
            let function = function.clone();
            move || {
                function.signal();
                function.signal();
            }
        });
        function.vector.close(&function.idle);
        let before = function.sent();
        function.unmask(2);
        device.join().unwrap();
        // Pending messages merge into one. Unless both messages were sent before the mask, at least
        // one must be sent after the unmask.
        assert!(
            function.sent() > before || before == 2,
            "{} sent, {before} before",
            function.sent()
        );
        assert!(!function.vector.is_pending());
    }
    explore_random(5_000, scenario);
}

/// Counts messages.
struct Sent(AtomicU32);

impl MessageSink for Sent {
    fn signal_msi(&self, _: RoutedMessage) -> Result<Delivery, SignalError> {
        self.0.fetch_add(1, SeqCst);
        Ok(Delivery::Pending)
    }
}

#[test]
fn disabling_bus_mastering_holds_a_concurrent_message() {
    fn scenario() {
        let sent = alloc::sync::Arc::new(Sent(AtomicU32::new(0)));
        let table = MsixTable::new(1, Sender::Anonymous, sent.clone()).expect("a vector fits");
        table.write_capability(3, &[0x80]);
        table.write(12, &0u32.to_le_bytes());
        let table = Arc::new(table);
        let device = thread::spawn({
            let table = table.clone();
            move || table.signal(0)
        });
        table.set_bus_master(BusMaster::Disabled);
        let before = sent.0.load(SeqCst);
        device.join().unwrap();
        assert_eq!(sent.0.load(SeqCst), before, "a message was sent without bus mastering");
        table.set_bus_master(BusMaster::Enabled);
        assert_eq!(sent.0.load(SeqCst), 1);
    }
    explore_random(2_500, scenario);
}
