//! Threads and event loops that serve eventfds.

use super::rig::{MESSAGE, Rig, message, nonblocking, signal};
use crate::controller::Controller;
use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use irq_routing::{Change, GsiSpace, Inputs, Router, Routing, Unsettled};
use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Controller whose kicks for event 1 block.
#[derive(Default)]
struct Slow {
    blocks: AtomicBool,
    rung: [AtomicU32; 3],
}

impl Slow {
    fn wait_until_rung(&self, event: usize, times: u32) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.rung[event].load(SeqCst) < times {
            assert!(Instant::now() < deadline, "event {event} was not served in time");
            thread::yield_now();
        }
    }
}

impl SignalMsi<DeviceId> for Slow {
    fn signal_msi(&self, _: DeviceId, message: MsiMessage) -> Delivery {
        self.rung[message.data as usize].fetch_add(1, SeqCst);
        while message.data == 1 && self.blocks.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        Delivery::Pending
    }
}

#[test]
fn a_blocked_irqfd_does_not_delay_other_irqfds() {
    let slow = Arc::new(Slow { blocks: AtomicBool::new(true), ..Slow::default() });
    let inputs = Inputs::new(Arc::new(Controller::default())).with_its(slow.clone());
    let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
    let gsis = [1, 2].map(|event| {
        let gsi = router.allocate().unwrap();
        router.commit(&[Change::Set(gsi, message(event))]).unwrap();
        gsi
    });
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller.clone(), router);
    let _serving = [poller.spawn().unwrap(), poller.spawn().unwrap()];
    let devices = [nonblocking(), nonblocking()];
    let _bound = [0, 1].map(|at| irqfds.bind(devices[at].clone(), gsis[at]).unwrap());

    signal(&devices[0]);
    slow.wait_until_rung(1, 1);
    for time in 1..=3 {
        signal(&devices[0]);
        signal(&devices[1]);
        slow.wait_until_rung(2, time);
    }
    drop(irqfds.bind(nonblocking(), gsis[0]).unwrap());
    assert_eq!(slow.rung[1].load(SeqCst), 1, "only one thread at a time may serve an eventfd");

    let limit = Duration::from_millis(20);
    assert_eq!(irqfds.settle(limit), Err(Unsettled(limit)), "a kick still blocks");

    slow.blocks.store(false, SeqCst);

    slow.wait_until_rung(1, 2);
}

#[test]
fn the_poller_fd_is_readable_while_a_signal_is_pending() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    let is_readable = || {
        let mut waited = [PollFd::new(&*rig.poller, PollFlags::IN)];
        poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(!is_readable());
    signal(&device);
    assert!(is_readable());
    rig.serve();
    assert!(!is_readable());
    assert!(rig.poller.as_fd().try_clone_to_owned().is_ok());
}
