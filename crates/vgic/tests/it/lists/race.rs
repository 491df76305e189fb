//! Tests for interrupts that arrive while registers change and vCPUs run their guests with few list
//! registers. Every interrupt must be handled, even if no later event makes a vCPU check for
//! pending interrupts.

use doorbell_test_support::guest::{Field, Half, Interface, Kicks, Machine};
use gic_arch::gicd;
use gic_arch::gicr::{self, Waker};
use gic_arch::{IntId, icc};
use msi_types::{Cpu, Line, SetLine};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vgic::VgicConfig;

const SPIS: [u32; 3] = [40, 41, 42];
const ROUNDS: u64 = 6_000;

/// Number that each device wrote before its last pulse, and the highest number that each handler
/// has read.
#[derive(Default)]
struct Board {
    sent: [AtomicU64; SPIS.len()],
    seen: [AtomicU64; SPIS.len()],
    /// For each vCPU, `true` if its guest has masked interrupts.
    masked: [AtomicBool; 2],
    stop: AtomicBool,
}

/// Runs a vCPU whose guest handles signaled interrupts. The vCPU exits only for kicks and
/// maintenance interrupts.
fn run(mut half: Half, masked: &AtomicBool, board: &Board) {
    while !board.stop.load(Ordering::SeqCst) {
        half.attend();
        if masked.load(Ordering::SeqCst) {
            thread::yield_now();
            continue;
        }
        let intid = half.read_sysreg(icc::IAR1.encoding()).unwrap();
        if let Some(device) = SPIS.iter().position(|spi| u64::from(*spi) == intid) {
            // Relaxed, because the interrupt itself must order the device's earlier write.
            let number = board.sent[device].load(Ordering::Relaxed);
            board.seen[device].fetch_max(number, Ordering::SeqCst);
            half.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
        } else {
            assert_eq!(intid, 1023);
            thread::yield_now();
        }
    }
}

/// Writes one of several registers, in such a way that every interrupt remains deliverable.
fn change_a_register(machine: &Machine, round: u64) {
    let spi = SPIS[usize::try_from(round / 9).unwrap() % SPIS.len()];
    let cpu = usize::from(round / 3 % 2 == 1);
    match round % 9 {
        0 => machine.route_to(spi, cpu),
        1 => machine.route_to_any(spi),
        2 => {
            machine.set_bit(gicd::ICENABLER, spi);
            machine.enable_spi(spi);
        }
        3 => {
            let priority = u32::try_from(round & 7).unwrap() << 4;
            machine.set_field(0, Field::Priority, spi, priority);
        }
        4 => {
            machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
            machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));
        }
        5 => {
            machine.write_gicr(cpu, gicr::WAKER, Waker::new().with_processor_sleep(true));
            machine.write_gicr(cpu, gicr::WAKER, Waker::new());
        }
        6 => {
            machine.set_bit(gicd::ISACTIVER, spi);
            machine.set_bit(gicd::ICACTIVER, spi);
        }
        7 => {
            let at = gicd::IGROUPR.locate(IntId::new(spi)).unwrap();
            machine.write_gicd(at.register(), !at.mask());
            machine.write_gicd(at.register(), 0xffff_ffff);
        }
        _ => {}
    }
}

/// Makes each device store the round's number and pulse its line.
fn send(machine: &Machine, board: &Board, round: u64) {
    for (spi, sent) in SPIS.into_iter().zip(&board.sent) {
        sent.store(round, Ordering::Relaxed);
        machine.gic.pulse(Line::Spi(spi));
    }
}

/// Waits until `done` returns `true`. Returns `false` on a timeout. While the whole machine stalls,
/// no thread could have made progress, so that time does not count.
fn wait_until(done: impl Fn() -> bool) -> bool {
    const STALL: Duration = Duration::from_millis(100);
    let (mut waited, mut last) = (Duration::ZERO, Instant::now());
    while !done() {
        let now = Instant::now();
        waited += (now - last).min(STALL);
        last = now;
        if waited > Duration::from_secs(20) {
            return false;
        }
        thread::yield_now();
    }
    true
}

/// Explains at each vCPU why the interrupts do not arrive, for a failed test.
fn explain(machine: &Machine) -> Vec<String> {
    let places = SPIS.iter().flat_map(|spi| [(0, *spi), (1, *spi)]);
    let explain = |(cpu, spi)| machine.gic.explain_interrupt(Cpu::new(cpu), IntId::new(spi));
    places.map(|place| format!("{place:?}: {}", explain(place))).collect()
}

/// Runs two vCPUs, with one and with two list registers. In each round, devices pulse their lines
/// while `disturb` runs.
fn nothing_is_lost_while(disturb: impl Fn(&Machine, &Board, u64)) {
    let kicked = Arc::new(Kicks::new(2));
    let config = VgicConfig::new(2).with_one_of_n(true);
    let mut machine = Machine::kicking(config, kicked.clone());
    machine.start();
    for spi in SPIS {
        machine.make_edge(spi);
        machine.enable_spi(spi);
    }
    let halves = machine.vcpus.drain(..).zip([1, 2]).map(|(vcpu, registers)| {
        let kicked = kicked.flag(vcpu.cpu().index());
        Half::lists(vcpu, registers, kicked)
    });
    let halves: Vec<_> = halves.collect();
    let (machine, board, begun) = (&machine, &Board::default(), &AtomicU64::new(0));

    thread::scope(|scope| {
        for (half, masked) in halves.into_iter().zip(&board.masked) {
            scope.spawn(move || run(half, masked, board));
        }
        scope.spawn(move || {
            for round in 1..=ROUNDS {
                wait_until(|| begun.load(Ordering::SeqCst) >= round);
                send(machine, board, round);
            }
        });
        let lost = (1..=ROUNDS).find_map(|round| {
            begun.store(round, Ordering::SeqCst);
            disturb(machine, board, round);
            let is_seen = |seen: &AtomicU64| seen.load(Ordering::SeqCst) >= round;
            let is_lost = !wait_until(|| board.seen.iter().all(is_seen));
            is_lost.then(|| (round, explain(machine)))
        });
        begun.store(ROUNDS, Ordering::SeqCst);
        board.stop.store(true, Ordering::SeqCst);
        assert_eq!(lost, None, "an interrupt was lost in this round");
    });
}

#[test]
fn concurrent_register_writes_lose_no_listed_interrupt() {
    nothing_is_lost_while(|machine, _, round| change_a_register(machine, round));
}

#[test]
fn rerouting_listed_spis_loses_no_interrupt() {
    nothing_is_lost_while(|machine, board, round| {
        let (from, to) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        board.masked[from].store(true, Ordering::SeqCst);
        board.masked[to].store(false, Ordering::SeqCst);
        if round % 4 < 2 {
            wait_until(|| board.sent.iter().all(|sent| sent.load(Ordering::SeqCst) == round));
        }
        for spi in SPIS {
            machine.route_to(spi, to);
        }
    });
}
