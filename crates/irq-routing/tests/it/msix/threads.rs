//! Devices that send while the guest changes the table.

use super::{DEVICE, ENABLED, HELD_BACK, MASKED, Rig, event, pending, program, router, table};
use irq_routing::msix::{MsixTable, Signaled, VectorObserver};
use irq_routing::{GsiSpace, MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::Delivery;
use msi_types::pci::msix::Control;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
#[cfg(target_os = "linux")]
use std::{fs, path::Path, time::Duration};

/// Slow observer.
struct Slow {
    opening: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl VectorObserver for Slow {
    fn opened(&self, _: u16, _: RoutedMessage) {
        self.opening.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
    }

    fn closed(&self, _: u16) {}
}

/// libkrun gained 5 % when its vCPUs stopped sharing a lock. A device's vectors share no lock with
/// each other or with a guest that is changing one of them.
#[test]
fn message_does_not_wait_for_another_vector() {
    let (router, controller) = router(GsiSpace::default());
    let (opening, is_opening) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let slow = Arc::new(Slow { opening, go_on: Mutex::new(told) });
    let table = table(3, &router).with_observer(slow);
    table.write_control(ENABLED);
    go_on.send(()).unwrap();
    program(&table, 0, 10, 0);
    is_opening.recv().unwrap();

    thread::scope(|scope| {
        scope.spawn(|| program(&table, 1, 11, 0));
        is_opening.recv().unwrap();
        assert_eq!(table.signal(0), Signaled::Sent(Delivery::Pending));
        assert_eq!(table.signal(2), Signaled::Held);
        go_on.send(()).unwrap();
    });

    assert_eq!(controller.heard(), [event(10)]);
}

/// Number of changes by the guest. Miri is slow, and switches threads more often.
const ROUNDS: u32 = 200;

/// Devices send while the guest masks, unmasks and disables vectors: no masked message is sent, and
/// none is lost.
#[test]
fn concurrent_masks_hold_messages_and_lose_none() {
    let rig = Rig::new(4);
    rig.table.write_control(ENABLED);
    (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), 0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for vector in 0..4 {
            let (table, stop) = (&rig.table, &stop);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    table.signal(vector);
                    thread::yield_now();
                }
            });
        }
        for round in 0..ROUNDS {
            match round % 3 {
                0 => (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), MASKED)),
                1 => rig.table.write_control(HELD_BACK),
                _ => rig.table.write_control(Control::new()),
            }
            rig.controller.heard();
            thread::yield_now();
            assert_eq!(rig.controller.heard(), [], "round {round}");
            rig.table.write_control(ENABLED);
            (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), 0));
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(pending(&rig.table, 0), 0);
}

/// Controller that stalls its first message until the test releases it or ends.
#[cfg(target_os = "linux")]
struct Stalled {
    begun: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

#[cfg(target_os = "linux")]
impl MessageSink for Stalled {
    fn signal_msi(&self, _: RoutedMessage) -> Result<Delivery, SignalError> {
        self.begun.send(()).unwrap();
        let _ = self.go_on.lock().unwrap().recv();
        Ok(Delivery::Pending)
    }
}

/// CPU time that a waiting thread may use before it counts as spinning.
#[cfg(target_os = "linux")]
const AWAKE: Duration = Duration::from_secs(1);

/// Returns `true` if a thread is asleep (proc_pid_stat(5): the state follows the name in
/// parentheses).
#[cfg(target_os = "linux")]
fn is_asleep(thread: &Path) -> bool {
    let fields = fs::read_to_string(thread.join("stat")).unwrap();
    fields.rsplit_once(") ").unwrap().1.starts_with('S')
}

/// Returns the CPU time of a thread (proc_pid_schedstat(5): the first number, in ns).
#[cfg(target_os = "linux")]
fn time_of(thread: &Path) -> Duration {
    let statistics = fs::read_to_string(thread.join("schedstat")).unwrap();
    let nanoseconds = statistics.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

#[cfg(target_os = "linux")]
#[test]
fn a_masking_thread_sleeps_until_the_message_is_sent() {
    let (begun, is_begun) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let stalled = Arc::new(Stalled { begun, go_on: Mutex::new(told) });
    let table = MsixTable::new(1, Sender::Device(DEVICE), stalled).unwrap();
    table.write_control(ENABLED);
    program(&table, 0, 7, 0);
    let is_masking = AtomicBool::new(false);
    thread::scope(|scope| {
        // Move `go_on` into this closure: a panic then drops it too, which ends the sending thread.
        let go_on = go_on;
        scope.spawn(|| table.signal(0));
        is_begun.recv().unwrap();
        let (id, identified) = mpsc::channel();
        let (table, is_masking) = (&table, &is_masking);
        let masking = scope.spawn(move || {
            id.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
            is_masking.store(true, SeqCst);
            table.write_control(HELD_BACK);
        });
        let thread = Path::new("/proc").join(identified.recv().unwrap());
        while !is_masking.load(SeqCst) {
            thread::yield_now();
        }

        while !is_asleep(&thread) {
            assert!(time_of(&thread) < AWAKE, "the thread waits without sleeping");
            thread::yield_now();
        }

        assert!(!masking.is_finished(), "the masking thread did not wait");
        go_on.send(()).unwrap();
    });
}
