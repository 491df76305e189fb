//! Devices that send while the guest changes the table.

use crate::controller::Controller;
use crate::rig::{DEVICE, ENABLED, HELD_BACK, MASKED, Rig, event, pending, program};
use irq_routing::msix::{MsixTable, Signalled};
use irq_routing::{Change, Changes, GsiSpace, RouteError, Router, Routing, Sender, SignalError};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, Gsi};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Routes that take their time to change.
struct Slow {
    router: Router,
    changing: Mutex<mpsc::Sender<()>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Routing for Slow {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.router.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        self.router.release(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        self.changing.lock().unwrap().send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.router.commit(changes)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        self.router.signal(gsi)
    }
}

/// libkrun gained 5 % when its vCPUs did not share a lock any more: a device's vectors share none
/// with each other, nor with the guest that is changing one of them.
#[test]
fn message_does_not_wait_for_another_vector() {
    let controller = Arc::new(Controller::default());
    let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
    let (changing, is_changing) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let slow = Arc::new(Slow { router, changing: Mutex::new(changing), go_on: Mutex::new(told) });
    let table = MsixTable::new(2, Sender::Device(DEVICE), slow).unwrap();
    table.write_control(ENABLED).unwrap();
    go_on.send(()).unwrap();
    program(&table, 0, 10, 0).unwrap();
    is_changing.recv().unwrap();

    thread::scope(|scope| {
        scope.spawn(|| program(&table, 1, 11, 0).unwrap());
        is_changing.recv().unwrap();
        assert_eq!(table.signal(0), Signalled::Sent(Delivery::Pending));
        assert_eq!(table.signal(1), Signalled::Held);
        go_on.send(()).unwrap();
    });

    assert_eq!(controller.heard(), [event(10), event(11)]);
}

/// Devices send while the guest masks, unmasks and disables: nothing is sent that is masked,
/// nothing is lost.
#[test]
fn threads_lose_nothing_and_respect_masks() {
    let rig = Rig::new(4);
    rig.table.write_control(ENABLED).unwrap();
    (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), 0).unwrap());
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
                0 => (0..4)
                    .for_each(|vector| program(&rig.table, vector, vector.into(), MASKED).unwrap()),
                1 => rig.table.write_control(HELD_BACK).unwrap(),
                _ => rig.table.write_control(Control::new()).unwrap(),
            }
            rig.controller.heard();
            thread::yield_now();
            assert_eq!(rig.controller.heard(), [], "round {round}");
            rig.table.write_control(ENABLED).unwrap();
            (0..4).for_each(|vector| program(&rig.table, vector, vector.into(), 0).unwrap());
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(pending(&rig.table, 0), 0);
}

/// Routes whose signals take long.
struct Lengthy {
    begun: AtomicBool,
}

const LONG: Duration = Duration::from_millis(600);

impl Routing for Lengthy {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        Ok(Gsi::new(0))
    }

    fn release(&self, _: &[Gsi]) -> Result<(), RouteError> {
        Ok(())
    }

    fn commit(&self, _: &[Change]) -> Result<Changes, RouteError> {
        Ok(Changes::default())
    }

    fn signal(&self, _: Gsi) -> Result<Delivery, SignalError> {
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
    table.write_control(ENABLED).unwrap();
    program(&table, 0, 7, 0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| table.signal(0));
        while !lengthy.begun.load(SeqCst) {
            thread::yield_now();
        }
        let (begun, used) = (Instant::now(), time_of_this_thread());

        table.write_control(HELD_BACK).unwrap();

        let (waited, after) = (begun.elapsed(), time_of_this_thread());
        let used = after.saturating_sub(used);
        assert!(waited > LONG / 4, "{waited:?}: nothing was to wait for");
        assert!(used < waited / 20, "it ran {used:?} of {waited:?}");
    });
}
