//! Channel ends that sleep until they are signaled.

#[path = "../../examples/kernel.rs"]
mod kernel;

use crate::board::{Board, OTHER, Ring, SLOT, function, prepare, spis};
use crate::peer::{Peer, create};
use crate::tamper::Tamper;
use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind, Received};
use hyperv_vpci::guest::{Bus, BusEvent, Kernel, Wait};
use hyperv_vpci::host::{Injection, Served};
use hyperv_vpci::protocol::{Request, Slot, Version};
use msi_types::MsiParent;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

#[test]
fn no_wait_times_out_while_the_host_answers() {
    let (board, device) = Board::with_device();
    for _ in 0..200 {
        let (block, _) = board.vector(&device);
        board.bus.free(&device, block);
    }
    assert_eq!(board.kernel.signals.waits_in_vain(), 0);
    // Each request of the loop is answered.
    assert!(board.kernel.signals.raised() >= 400);
    board.bus.detach(device);
    board.bus.close().unwrap();
    assert_eq!(board.kernel.signals.waits_in_vain(), 0);
}

#[test]
fn every_bus_change_signals_the_guest_once() {
    let board = Board::new();
    while board.bus.next_event().is_some() {}
    let third = Slot::new(2, 0);
    for _ in 0..3 {
        board.kernel.signals.raised();
        let changed = |change: &dyn Fn(&mut hyperv_vpci::host::Host)| {
            board.kernel.change(change);
            assert_eq!(board.kernel.signals.raised(), 1);
            board.hear();
        };
        changed(&|host| _ = host.offer(function(third)).unwrap());
        assert_eq!(board.bus.next_event(), Some(BusEvent::Arrived(third)));
        board.kernel.signals.raised();
        changed(&|host| host.eject(third).unwrap());
        assert_eq!(board.bus.next_event(), Some(BusEvent::EjectRequested(third)));
        changed(&|host| host.remove(third).unwrap());
        assert_eq!(board.bus.next_event(), Some(BusEvent::Gone(third)));
    }
    assert_eq!(board.kernel.signals.waits_in_vain(), 0);
}

/// Operation of a channel.
#[derive(PartialEq, Eq)]
pub(crate) enum Operation {
    Send,
    Receive,
    Idle,
}

/// Channel that calls a function before each operation, which may make the operation fail.
pub(crate) struct Hooked<F>(pub(crate) Ring, pub(crate) F);

impl<F: FnMut(Operation) -> Result<(), ChannelError> + Send> Channel for Hooked<F> {
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError> {
        (self.1)(Operation::Send)?;
        self.0.send(kind, payload)
    }
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
        (self.1)(Operation::Receive)?;
        self.0.receive(buffer)
    }
    fn idle(&mut self) -> Result<Idle, ChannelError> {
        (self.1)(Operation::Idle)?;
        self.0.idle()
    }
}

/// Returns a channel whose peer sends between the last check and the re-arming of the signal.
pub(crate) fn overtaken(inner: Ring, mut before_idle: impl FnMut() + Send) -> impl Channel {
    Hooked(inner, move |operation| {
        if operation == Operation::Idle {
            before_idle();
        }
        Ok(())
    })
}

/// Returns a channel that has no room for the next packet once the flag is set.
pub(crate) fn full_once(inner: Ring, is_full: Arc<AtomicBool>) -> impl Channel {
    Hooked(inner, move |operation| {
        let is_full = operation == Operation::Send && is_full.swap(false, SeqCst);
        if is_full { Err(ChannelError::Full) } else { Ok(()) }
    })
}

/// Channel whose peer sends as fast as this end reads while `floods` is set.
struct Flooded {
    inner: Ring,
    floods: Arc<AtomicBool>,
}

impl Channel for Flooded {
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError> {
        self.inner.send(kind, payload)
    }
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
        if self.floods.load(SeqCst) {
            return Ok(Some(Received { kind: PacketKind::Notice, length: 0 }));
        }
        self.inner.receive(buffer)
    }
    fn idle(&mut self) -> Result<Idle, ChannelError> {
        self.inner.idle()
    }
}

#[test]
fn poll_of_a_flooded_guest_returns_busy() {
    let (gic, vectors) = spis();
    let (kernel, _devices, inner) = prepare(Version::V1_4, Injection::Spi(gic), &Tamper::default());
    let floods = Arc::new(AtomicBool::new(false));
    let channel = Box::new(Flooded { inner, floods: floods.clone() });
    let bus = Bus::open(crate::board::config(), channel, vectors, kernel).unwrap();
    floods.store(true, SeqCst);
    assert_eq!(bus.poll(), Ok(Idle::Busy));
    floods.store(false, SeqCst);
    assert_eq!(bus.poll(), Ok(Idle::Sleep));
}

#[test]
fn a_request_racing_the_hosts_sleep_is_served() {
    let mut peer = Peer::on(Version::V1_4);
    peer.near.send(PacketKind::Request(100), &Peer::emit(&create(SLOT, 64, 1))).unwrap();
    let (near, far) = crate::board::channel();
    let mut near = std::mem::replace(&mut peer.near, near);
    let inner = std::mem::replace(&mut peer.far, far);
    let mut late = Some(Peer::emit(&create(OTHER, 65, 1)));
    let before_idle = || {
        if let Some(request) = late.take() {
            near.send(PacketKind::Request(101), &request).unwrap();
        }
    };
    let served = peer.host.serve(&mut overtaken(inner, before_idle));
    assert_eq!(served, Ok(Served::All));
    assert_eq!((peer.host.vectors(SLOT), peer.host.vectors(OTHER)), (1, 1));
}

#[test]
fn a_packet_racing_the_guests_sleep_is_handled() {
    let (gic, vectors) = spis();
    let (kernel, _devices, inner) = prepare(Version::V1_4, Injection::Spi(gic), &Tamper::default());
    let is_late = Arc::new(AtomicBool::new(false));
    let (host, late) = (kernel.clone(), is_late.clone());
    let eject = move |slot| host.change(|host| host.eject(slot).unwrap());
    let eject_late = eject.clone();
    let before_idle = move || {
        if late.swap(false, SeqCst) {
            eject_late(OTHER);
        }
    };
    let channel = Box::new(overtaken(inner, before_idle));
    let bus = Bus::open(crate::board::config(), channel, vectors, kernel.clone()).unwrap();
    while bus.next_event().is_some() {}
    kernel.signals.raised();
    is_late.store(true, SeqCst);
    eject(SLOT);
    assert!(kernel.signals.host_signaled());
    assert_eq!(bus.poll(), Ok(Idle::Sleep));
    assert!(!is_late.load(SeqCst), "the guest did not sleep");
    let events: Vec<_> = std::iter::from_fn(|| bus.next_event()).collect();
    assert_eq!(events, [SLOT, OTHER].map(BusEvent::EjectRequested));
    // The second ejection arrived while signals were masked.
    assert_eq!(kernel.signals.raised(), 1);
}

#[test]
fn packets_beyond_one_poll_are_still_handled() {
    let board = Board::new();
    while board.bus.next_event().is_some() {}
    // Send more ejections than one poll handles, followed by a new function.
    let third = Slot::new(2, 0);
    let mut eject = [0; 8];
    hyperv_vpci::protocol::Notice::Eject(SLOT).emit(&mut eject).unwrap();
    for _ in 0..400 {
        board.kernel.send(PacketKind::Notice, &eject);
    }
    board.kernel.change(|host| host.offer(function(third)).unwrap());
    board.hear();
    let events: Vec<_> = std::iter::from_fn(|| board.bus.next_event()).collect();
    assert_eq!(events, [BusEvent::Arrived(third), BusEvent::EjectRequested(SLOT)]);
    assert_eq!(board.kernel.signals.waits_in_vain(), 0);
}

#[test]
fn a_host_without_room_for_an_ejection_is_blocked() {
    let mut peer = Peer::on(Version::V1_4);
    peer.send(&Peer::emit(&Request::QueryResources(SLOT)));
    peer.host.eject(SLOT).unwrap();
    let (_, far) = crate::board::channel();
    let mut far = full_once(std::mem::replace(&mut peer.far, far), Arc::new(true.into()));
    // The guest signals that the channel has room, and the next call sends both.
    assert_eq!(peer.host.serve(&mut far), Ok(Served::Blocked));
    assert_eq!(peer.near.receive(&mut [0; 64]), Ok(None));
    assert_eq!(peer.host.serve(&mut far), Ok(Served::All));
    let kinds = [0, 1].map(|_| peer.near.receive(&mut [0; 64]).unwrap().map(|of| of.kind));
    assert!(matches!(kinds, [Some(PacketKind::Notice), Some(PacketKind::Completion(_))]));
}

#[test]
fn opening_a_bus_fails_if_the_host_never_stops_sending_notices() {
    let (gic, vectors) = spis();
    let (kernel, _devices, inner) = prepare(Version::V1_4, Injection::Spi(gic), &Tamper::default());
    let channel = Flooded { inner, floods: Arc::new(true.into()) };
    let config = crate::board::config();
    let opened = Bus::open(config, Box::new(channel), vectors, kernel);
    assert!(opened.is_err(), "the host's answers are lost");
}

/// Runs the example, in which four tasks wait on one bus.
#[test]
fn tasks_that_wait_on_one_bus_lose_no_wake_up() {
    kernel::main().unwrap();
}

/// Wakes two of the example's tasks all the time, the second of which begins to wait later.
#[test]
fn a_repeatedly_woken_task_gives_up_at_its_deadline() {
    let limit = Duration::from_millis(200);
    let kernel = kernel::SleepingKernel::new(limit);
    let wait = || {
        let start = Instant::now();
        for turn in 0.. {
            let seen = kernel.wake_ups();
            std::thread::sleep(Duration::from_millis(1));
            kernel.wake();
            if kernel.wait(seen, turn) == Wait::GiveUp {
                break;
            }
        }
        start.elapsed()
    };
    let elapsed = std::thread::scope(|scope| {
        let first = scope.spawn(wait);
        std::thread::sleep(limit / 2);
        [wait(), first.join().unwrap(), wait()]
    });
    assert!(elapsed.iter().all(|it| (limit..100 * limit).contains(it)), "{elapsed:?}");
}
