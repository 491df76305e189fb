//! Tests for messages and line changes that arrive while vCPUs are paused.

use super::board::{Board, CPUS};
use doorbell_test_support::guest::{mapd, mapti, send};
use msi_types::{Cpu, Delivery, Kick};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
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
    let gic = board.gic.clone();
    let paused = board.pause();
    assert_eq!(send(&gic, 5, 0), Delivery::Pending);
    let first = gic.save().unwrap();
    assert_eq!(send(&gic, 5, 3), Delivery::Pending);
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
fn a_message_kicks_a_sleeping_paused_vcpu() {
    let mut board = with_device();
    assert_eq!(board.vcpus[1].prepare_to_sleep(), vgic::Sleep::Ready);
    let gic = board.gic.clone();
    let paused = board.pause();
    let _ = gic.save().unwrap();
    send(&gic, 5, 1);
    drop(paused);
    assert_eq!(board.kicks.of(1), 1);
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
    board.send(5, 0);
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
