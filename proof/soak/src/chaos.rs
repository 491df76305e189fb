//! Four vCPU threads of changing kinds, two device threads, and a guest thread that reprograms the
//! interrupt controllers. Between rounds, the machine may migrate.
//!
//! The judge is the ledger, which knows only two rules of the architecture:
//!
//! - each signal is followed by at least one handling that began after it, so the handler observes
//!   the device's stores, and
//! - each handling consumes the pending state that at least one signal has set, so there are never
//!   more handlings than signals.

mod eventfds;
mod ledger;
mod machine;
mod migrate;
mod program;
mod seat;
mod vcpu;

use crate::guest::Guest;
use fastrand::Rng;
use ledger::Ledger;
use machine::{Counts, Plan, World};
use program::Programs;
use seat::Seat;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time for the last interrupts of a round to be handled. The machine may be shared with
/// other load.
const PATIENCE: Duration = Duration::from_mins(1);
/// Times between two operations of the guest in a round. Pauses let more interrupts meet the same
/// configuration.
const PAUSES: [Duration; 3] =
    [Duration::ZERO, Duration::from_micros(20), Duration::from_micros(200)];
/// Number of device threads.
const SENDERS: usize = 2;

/// Sends `messages` signals. Returns a description of the machine, and what has been counted.
pub(crate) fn run(seed: u64, messages: u64) -> String {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::draw(&mut rng);
    let mut world = World::new(plan, &mut rng);
    let mut counts = Counts::new();
    while world.ledger.sent() < messages {
        let left = messages - world.ledger.sent();
        let share = rng.u64(50..1500).min(left.div_ceil(SENDERS as u64));
        let is_last = share * SENDERS as u64 >= left;
        let is_quiet = is_last || rng.bool();
        let operations = round(&mut world, &mut rng, share, is_quiet);
        *counts.entry("guest operations").or_default() += operations;
        *counts.entry("rounds").or_default() += 1;
        if rng.bool() {
            migrate::migrate(&mut world, &mut rng, &mut counts);
            if rng.bool() {
                quiesce(&mut world, &mut rng);
            }
        }
    }
    quiesce(&mut world, &mut rng);
    world.ledger.judge();
    counts.insert("handled", world.ledger.handled());
    counts.insert("kicks", world.kicks.total() as u64);
    format!("{plan:?}, {counts:?}")
}

/// Runs a round, in which each device thread sends `share` signals, and returns the number of guest
/// operations. After a quiet round, all signals have been handled.
fn round(world: &mut World, rng: &mut Rng, share: u64, is_quiet: bool) -> u64 {
    let mut operations = 0;
    let pause = PAUSES[rng.usize(..PAUSES.len())];
    let seats = thread_round(world, rng, |world, rng| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let programs = Programs { world, stop: &stop, pause };
            let seed = rng.u64(..);
            let guest = scope.spawn(move || programs.run(&mut Rng::with_seed(seed)));
            let senders = (0..SENDERS).map(|first| {
                let mut rng = rng.fork();
                scope.spawn(move || send(world, &mut rng, first, share))
            });
            for sender in senders.collect::<Vec<_>>() {
                sender.join().unwrap();
            }
            stop.store(true, SeqCst);
            operations = guest.join().unwrap();
        });
        if is_quiet {
            settle(&world.ledger, &world.guest);
        }
    });
    world.seats = seats;
    operations
}

/// Lets the vCPUs handle all signals while nothing else happens. Later signals of a source would
/// hide the loss of an earlier one.
fn quiesce(world: &mut World, rng: &mut Rng) {
    world.seats = thread_round(world, rng, |world, _| settle(&world.ledger, &world.guest));
}

/// Runs the vCPUs' threads while `work` runs.
fn thread_round(
    world: &mut World,
    rng: &mut Rng,
    work: impl FnOnce(&World, &mut Rng),
) -> Vec<Seat> {
    let seats = std::mem::take(&mut world.seats);
    let world = &*world;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads = seats.into_iter().map(|seat| {
            let (mut rng, stop) = (rng.fork(), &stop);
            scope.spawn(move || seat.run(world, &mut rng, stop))
        });
        let threads = threads.collect::<Vec<_>>();
        work(world, rng);
        stop.store(true, SeqCst);
        world.kicks.wake_all();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// Sends `share` signals of every second source.
fn send(world: &World, rng: &mut Rng, first: usize, share: u64) {
    let sources = &world.ledger.sources;
    let own: Vec<_> = sources.iter().skip(first).step_by(SENDERS).collect();
    for _ in 0..share {
        world.send(own[rng.usize(..own.len())]);
        if rng.u8(..8) == 0 {
            thread::yield_now();
        }
    }
}

/// Waits until all signals have been handled.
fn settle(ledger: &Ledger, guest: &Guest) {
    let start = Instant::now();
    while let Some(report) = ledger.unseen(guest) {
        assert!(start.elapsed() < PATIENCE, "signals without a handling:\n{}", report());
        thread::sleep(Duration::from_micros(200));
    }
    ledger.judge();
}
