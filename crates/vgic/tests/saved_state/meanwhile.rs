//! Tests for messages and line changes that arrive while vCPUs are paused.

use super::board::{Board, CPUS};
use doorbell_test_support::guest::{mapd, mapti};
use gic_arch::gicd::Irouter;
use gic_arch::{IntId, gicd};
use msi_types::{Cpu, Delivery, Kick, Level, Line, SetLine};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, RwLock};
use std::thread;
use vgic::Vgic;
use vgic::saved_state::SavedState;

const EVENTS: u32 = 24;

/// Creates a machine with a device of [`EVENTS`] events, distributed over the vCPUs.
fn with_device() -> Board {
    let board = Board::running();
    board.run([mapd(5, 5, 0x4010_0000)]);
    board.run(
        (0..EVENTS)
            .map(|event| mapti(5, event, 8192 + event, u16::try_from(event).unwrap() % CPUS)),
    );
    board
}

fn pending_lpis(saved: &SavedState) -> BTreeSet<u32> {
    let events = saved.its[0].devices[0].events.iter().filter(|event| event.pending);
    events.map(|event| event.intid.get()).collect()
}

#[test]
fn a_later_message_is_in_the_next_save() {
    let mut board = with_device();
    let its = board.gic.its(0).unwrap();
    let send = |event| {
        let address = super::board::ITS + u64::from(gic_arch::gits::TRANSLATER.offset());
        its.signal_msi(msi_types::DeviceId::new(5), msi_types::MsiMessage { address, data: event })
    };
    let gic = board.gic.clone();
    let paused = board.pause();
    assert_eq!(send(0), Delivery::Pending);
    let first = gic.save().unwrap();
    assert_eq!(send(3), Delivery::Pending);
    let second = gic.save().unwrap();
    drop(paused);

    assert_eq!(pending_lpis(&first), BTreeSet::from([8192]));
    assert_eq!(pending_lpis(&second), BTreeSet::from([8192, 8195]));
    assert_eq!(
        board.handle_all(0).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([8192, 8195])
    );
}

#[test]
fn a_line_changed_meanwhile_is_in_the_next_save() {
    let mut board = Board::running();
    board.enable_spi(40);
    let route = Irouter::to(board.gic.config().cpus[0].affinity);
    board.write_gicd(gicd::irouter(IntId::new(40)).unwrap(), route);
    let is_high = |saved: &SavedState| {
        saved.distributor.interrupts.iter().any(|it| it.intid == IntId::new(40) && it.line)
    };
    let gic = board.gic.clone();
    let paused = board.pause();
    let first = gic.save().unwrap();
    assert_eq!(gic.set_line(Line::Spi(40), Level::High), Delivery::Pending);
    let second = gic.save().unwrap();
    drop(paused);

    assert!(!is_high(&first) && is_high(&second));
    assert_eq!(board.handle_all(0), [40]);
}

#[test]
fn a_message_kicks_a_sleeping_paused_vcpu() {
    let mut board = with_device();
    assert_eq!(board.vcpus[1].prepare_to_sleep(), vgic::Sleep::Ready);
    let gic = board.gic.clone();
    let paused = board.pause();
    let _ = gic.save().unwrap();
    let its = gic.its(0).unwrap();
    let address = super::board::ITS + u64::from(gic_arch::gits::TRANSLATER.offset());
    let message = msi_types::MsiMessage { address, data: 1 };
    its.signal_msi(msi_types::DeviceId::new(5), message);
    drop(paused);
    assert_eq!(board.kicks.of(1), 1);
}

/// Connection between the device and the machine, which is redirected to the new machine after a
/// migration.
struct Wire {
    gic: RwLock<Arc<Vgic>>,
    /// Number of messages for each event, incremented before each message is sent.
    sent: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Wire {
    fn new(board: &Board) -> Self {
        let sent = (0..EVENTS).map(|_| AtomicU64::new(0)).collect();
        Self { gic: RwLock::new(board.gic.clone()), sent, stop: AtomicBool::new(false) }
    }

    /// Returns `true` if every event was sent several times.
    fn is_busy(&self) -> bool {
        self.sent.iter().all(|sent| sent.load(SeqCst) > 5)
    }

    /// Sends messages for some events until the test sets `stop`.
    fn send(&self, events: &[u32]) {
        let address = super::board::ITS + u64::from(gic_arch::gits::TRANSLATER.offset());
        while !self.stop.load(SeqCst) {
            for event in events.iter().copied() {
                let gic = self.gic.read().unwrap();
                self.sent[event as usize].fetch_add(1, SeqCst);
                let message = msi_types::MsiMessage { address, data: event };
                let its = gic.its(0).unwrap();
                assert_eq!(its.signal_msi(msi_types::DeviceId::new(5), message), Delivery::Pending);
            }
        }
    }
}

/// Number of the last message that the guest has handled, for each event.
#[derive(Default)]
struct Guest(BTreeMap<u32, u64>);

impl Guest {
    /// Makes each vCPU handle up to `most` interrupts.
    fn handle(&mut self, board: &mut Board, wire: &Wire, most: usize) {
        for cpu in 0..usize::from(CPUS) {
            for _ in 0..most {
                let intid = board.acknowledge(cpu);
                if intid == 1023 {
                    break;
                }
                let event = u32::try_from(intid).unwrap() - 8192;
                self.0.insert(event, wire.sent[event as usize].load(SeqCst));
                board.end(cpu, intid);
            }
        }
    }
}

#[test]
fn pausing_under_load_loses_nothing() {
    let mut board = with_device();
    let wire = Wire::new(&board);
    let mut guest = Guest::default();
    thread::scope(|scope| {
        for half in 0..2 {
            let wire = &wire;
            scope.spawn(move || wire.send(&(half..EVENTS).step_by(2).collect::<Vec<_>>()));
        }
        for round in 0.. {
            guest.handle(&mut board, &wire, 5);
            let _ = board.save();
            if round >= 200 && wire.is_busy() {
                break;
            }
        }
        wire.stop.store(true, SeqCst);
    });
    guest.handle(&mut board, &wire, EVENTS as usize);

    let sent: BTreeMap<u32, u64> =
        (0..EVENTS).map(|event| (event, wire.sent[event as usize].load(SeqCst))).collect();
    assert_eq!(guest.0, sent, "the last message of each event must be handled");
}

#[test]
fn moving_under_load_loses_nothing() {
    let mut board = with_device();
    let wire = Wire::new(&board);
    let mut guest = Guest::default();
    thread::scope(|scope| {
        for half in 0..2 {
            let wire = &wire;
            scope.spawn(move || wire.send(&(half..EVENTS).step_by(2).collect::<Vec<_>>()));
        }
        for round in 0.. {
            if round >= 50 && wire.is_busy() {
                break;
            }
            guest.handle(&mut board, &wire, 5);
            let mut other = Board::over(board.gic.config().clone(), board.ram.clone());
            let gic = board.gic.clone();
            let paused = board.pause();
            let early = gic.save().unwrap();
            let mut connection = wire.gic.write().unwrap();
            let last = gic.save().unwrap();
            assert!(pending_lpis(&early).is_subset(&pending_lpis(&last)));
            other.restore(&last);
            *connection = other.gic.clone();
            drop(connection);
            drop(paused);
            board = other;
        }
        wire.stop.store(true, SeqCst);
    });
    guest.handle(&mut board, &wire, EVENTS as usize);

    let sent: BTreeMap<u32, u64> =
        (0..EVENTS).map(|event| (event, wire.sent[event as usize].load(SeqCst))).collect();
    assert_eq!(guest.0, sent);
}

/// A kick handler that gives another thread the opportunity to resume its vCPUs.
struct ResumeDuringKick {
    ask: Sender<()>,
    asked: AtomicBool,
    resumed: AtomicBool,
    /// `true` if the vCPUs resumed during a kick.
    seen: AtomicBool,
}

impl Kick for ResumeDuringKick {
    fn kick(&self, _: Cpu) {
        self.ask.send(()).unwrap();
        while !self.asked.load(SeqCst) {
            thread::yield_now();
        }
        (0..10_000).for_each(|_| thread::yield_now());
        self.seen.fetch_or(self.resumed.load(SeqCst), SeqCst);
    }
}

#[test]
fn no_vcpu_resumes_during_a_restore() {
    let mut board = with_device();
    let its = board.gic.its(0).unwrap();
    let address = super::board::ITS + u64::from(gic_arch::gits::TRANSLATER.offset());
    let message = msi_types::MsiMessage { address, data: 0 };
    its.signal_msi(msi_types::DeviceId::new(5), message);
    let saved = board.save();
    let (ask, asked) = channel();
    let [no, never, yet] = [const { AtomicBool::new(false) }; 3];
    let kick = Arc::new(ResumeDuringKick { ask, asked: no, resumed: never, seen: yet });
    let (gic, mut vcpus) =
        Vgic::new(board.gic.config().clone(), board.ram.clone(), kick.clone()).unwrap();
    assert_eq!(vcpus[0].prepare_to_sleep(), vgic::Sleep::Ready);
    let paused: Vec<_> = vcpus.iter_mut().map(vgic::Vcpu::pause).collect();
    thread::scope(|scope| {
        let resumer = kick.clone();
        scope.spawn(move || {
            asked.recv().unwrap();
            resumer.asked.store(true, SeqCst);
            drop(paused);
            resumer.resumed.store(true, SeqCst);
        });
        gic.restore(&saved).unwrap();
    });
    assert!(!kick.seen.load(SeqCst), "a vCPU ran in a half-restored machine");
    assert!(vcpus[0].irq_pending(), "the vCPU resumes with the restored interface");
}
