//! Devices that send while the guest changes the table.

use crate::rig::{DEVICE, ENABLED, HELD_BACK, MASKED, Rig, event, pending, program, router, table};
use irq_routing::msix::{MsixTable, Signalled, VectorObserver};
use irq_routing::{GsiSpace, MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::Delivery;
use msi_types::pci::msix::Control;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// An observer that takes its time.
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

/// libkrun gained 5 % when its vCPUs did not share a lock any more. A device's vectors share none
/// with each other, nor with the guest that is changing one of them.
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
        assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
        assert_eq!(table.signal(2), Signalled::Held);
        go_on.send(()).unwrap();
    });

    assert_eq!(controller.heard(), [event(10)]);
}

/// Devices send while the guest masks, unmasks and disables: nothing is sent that is masked,
/// nothing is lost.
#[test]
fn threads_lose_nothing_and_respect_masks() {
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
        for round in 0..200 {
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

/// A controller whose messages take long.
struct Lengthy {
    begun: AtomicBool,
}

const LONG: Duration = Duration::from_millis(600);

impl MessageSink for Lengthy {
    fn signal_msi(&self, _: RoutedMessage) -> Result<Delivery, SignalError> {
        self.begun.store(true, SeqCst);
        thread::sleep(LONG);
        Ok(Delivery::Pending)
    }
}

/// Time that this thread ran (proc_pid_schedstat(5): the first number, in ns).
#[cfg(target_os = "linux")]
fn time_of_this_thread() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = statistics.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

#[cfg(target_os = "linux")]
#[test]
fn masking_thread_sleeps_until_sent() {
    let lengthy = Arc::new(Lengthy { begun: AtomicBool::new(false) });
    let table = MsixTable::new(1, Sender::Device(DEVICE), lengthy.clone()).unwrap();
    table.write_control(ENABLED);
    program(&table, 0, 7, 0);
    thread::scope(|scope| {
        scope.spawn(|| table.signal(0));
        while !lengthy.begun.load(SeqCst) {
            thread::yield_now();
        }
        let (begun, used) = (Instant::now(), time_of_this_thread());

        table.write_control(HELD_BACK);

        let (waited, after) = (begun.elapsed(), time_of_this_thread());
        let used = after.saturating_sub(used);
        assert!(waited > LONG / 4, "{waited:?}: nothing was to wait for");
        assert!(used < waited / 20, "it ran {used:?} of {waited:?}");
    });
}
