//! Tests in which interrupts arrive on other threads just as vCPUs fall asleep, or as they start or
//! stop participating. No wake-up may be lost.

use super::sleep::{SPI, pulse};
use doorbell_test_support::guest::{Field, Kicks, Machine};
use gic_arch::{gicr, icc};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use vgic::{Sleep, Vcpu, Vgic, VgicConfig};

const SENDERS: u32 = 3;
const MESSAGES: u64 = 100_000;
const CPUS: usize = 2;
/// SGI sent at the end of a test to stop each vCPU.
const STOP: u32 = 7;

/// Number that each device wrote before its last pulse, and the highest number that each handler
/// has read.
struct Board {
    sent: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    /// Number of times that a vCPU has prepared to sleep.
    departures: AtomicUsize,
    stop: AtomicBool,
}

/// Runs a vCPU, which sleeps until it is kicked and then handles its interrupts.
fn run(mut vcpu: Vcpu, kicks: &Kicks, board: &Board) {
    let (cpu, mut heard) = (vcpu.cpu().index(), 0);
    while !board.stop.load(Ordering::SeqCst) {
        while vcpu.irq_pending() {
            let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
            if intid != 1023 {
                if let Some(device) =
                    intid.checked_sub(SPI.into()).and_then(|device| usize::try_from(device).ok())
                {
                    // Relaxed, because the interrupt itself must order the device's earlier write.
                    let number = board.sent[device].load(Ordering::Relaxed);
                    board.seen[device].fetch_max(number, Ordering::SeqCst);
                }
                vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
            }
        }
        board.departures.fetch_add(1, Ordering::SeqCst);
        if vcpu.prepare_to_sleep() == Sleep::Ready {
            heard = kicks.wait(cpu, heard);
            vcpu.returned();
        }
    }
}

#[test]
fn rerouting_spis_loses_no_message_to_a_sleeping_vcpu() {
    let mut machine = Machine::running(VgicConfig::new(2));
    for device in 0..SENDERS {
        let spi = SPI + device;
        machine.make_edge(spi);
        machine.enable_spi(spi);
    }
    for cpu in 0..CPUS {
        machine.enable_private(cpu, STOP);
    }
    let board = Board {
        sent: (0..SENDERS).map(|_| AtomicU64::new(0)).collect(),
        seen: (0..SENDERS).map(|_| AtomicU64::new(0)).collect(),
        departures: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    let vcpus: Vec<_> = machine.vcpus.drain(..).collect();

    thread::scope(|scope| {
        for vcpu in vcpus {
            scope.spawn(|| run(vcpu, &machine.kicks, &board));
        }
        let senders: Vec<_> = (0..SENDERS)
            .map(|device| {
                scope.spawn({
                    let (gic, board) = (&machine.gic, &board);
                    move || send(gic, board, device)
                })
            })
            .collect();
        for step in
            (0..usize::MAX).take_while(|_| senders.iter().any(|sender| !sender.is_finished()))
        {
            let spi = SPI + u32::try_from(step % 3).unwrap();
            machine.route_to(spi, step / 3 % CPUS);
            thread::yield_now();
        }
        for sender in senders {
            sender.join().unwrap();
        }
        wait_until(|| {
            (0..SENDERS as usize)
                .all(|device| board.seen[device].load(Ordering::SeqCst) == MESSAGES)
        });
        board.stop.store(true, Ordering::SeqCst);
        for cpu in 0..CPUS {
            machine.set_field(cpu, Field::Pend, STOP, 1);
        }
    });

    let kicks = machine.kicks.total();
    let departures = board.departures.load(Ordering::SeqCst);
    assert!(kicks <= departures, "{kicks} kicks for {departures} departures");
}

fn send(gic: &Vgic, board: &Board, device: u32) {
    let spi = SPI + device;
    for number in 1..=MESSAGES {
        board.sent[device as usize].store(number, Ordering::Relaxed);
        pulse(gic, spi);
    }
}

fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the condition was not met in time: a message was lost");
}

/// Sends the next message as soon as the last one was handled. At that time, the vCPU is about to
/// sleep, or to clear the ready bit of the interrupt that it has handled. Kicks make no system
/// calls, so that the sender and the vCPU can interleave at every instruction.
#[test]
fn a_vcpu_falling_asleep_loses_no_message() {
    const ROUNDS: u64 = 100_000;
    let kicked = Arc::new(AtomicBool::new(false));
    let kick = {
        let kicked = kicked.clone();
        move |_| kicked.store(true, Ordering::SeqCst)
    };
    let mut machine = Machine::kicking(VgicConfig::new(1), Arc::new(kick));
    machine.start();
    for spi in [SPI, SPI + 1] {
        machine.make_edge(spi);
        machine.enable_spi(spi);
    }
    let mut vcpu = machine.vcpus.remove(0);
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    let ended = AtomicUsize::new(0);

    thread::scope(|scope| {
        for (device, seen) in seen.iter().enumerate() {
            let (gic, ended) = (&machine.gic, &ended);
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    pulse(gic, SPI + u32::try_from(device).unwrap());
                    spin_until(|| {
                        seen.load(Ordering::SeqCst) >= number || ended.load(Ordering::SeqCst) > 2
                    });
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        while ended.load(Ordering::SeqCst) < 2 {
            let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
            if intid != 1023 {
                vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
                seen[usize::from(intid != u64::from(SPI))].fetch_add(1, Ordering::SeqCst);
            } else if vcpu.prepare_to_sleep() == Sleep::Ready {
                let rung = spin_until(|| {
                    kicked.swap(false, Ordering::SeqCst) || ended.load(Ordering::SeqCst) > 1
                });
                if !rung {
                    ended.store(10, Ordering::SeqCst);
                    panic!("the vCPU slept despite a message after {seen:?}");
                }
                vcpu.returned();
            }
        }
    });
}

/// A 1-of-N interrupt arrives just as the first of two vCPUs starts or stops participating. The
/// interrupt must be delivered to the vCPU that participates.
fn comes_just_as_a_vcpu(joins: bool) {
    const ROUNDS: u64 = 10_000;
    let mut machine = Machine::running(VgicConfig::new(2).with_one_of_n(true));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine.route_to_any(SPI);
    let take_part = |machine: &Machine, cpu: usize, takes_part: bool| {
        machine.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_dpg1_ns(!takes_part));
    };
    let delay = |turns: u64| (0..turns).for_each(|_| std::hint::spin_loop());
    let participant = usize::from(!joins);
    take_part(&machine, 1, !joins);
    let (begun, sent) = (AtomicU64::new(0), AtomicU64::new(0));
    let gic = Arc::clone(&machine.gic);

    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                spin_until(|| begun.load(Ordering::SeqCst) >= round);
                delay(round * 7 % 64);
                pulse(&gic, SPI);
                sent.store(round, Ordering::SeqCst);
            }
        });
        let lost = (1..=ROUNDS).find(|round| {
            take_part(&machine, 0, !joins);
            begun.store(*round, Ordering::SeqCst);
            delay(round % 64);
            take_part(&machine, 0, joins);
            spin_until(|| sent.load(Ordering::SeqCst) >= *round);
            let taken = machine.acknowledge(participant);
            machine.end(participant, taken);
            taken != u64::from(SPI)
        });
        begun.store(ROUNDS, Ordering::SeqCst);
        assert_eq!(lost, None, "no vCPU received the interrupt of this round");
    });
}

#[test]
fn enabling_one_of_n_delivery_at_a_vcpu_loses_no_interrupt() {
    comes_just_as_a_vcpu(true);
}

#[test]
fn disabling_one_of_n_delivery_at_a_vcpu_loses_no_interrupt() {
    comes_just_as_a_vcpu(false);
}

/// Spins until `done` returns `true`. Returns `false` on a timeout.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let start = std::time::Instant::now();
    for turn in 0u32.. {
        if done() {
            return true;
        }
        if turn % 64 == 63 {
            thread::yield_now();
            if start.elapsed() > Duration::from_secs(20) {
                return false;
            }
        }
        std::hint::spin_loop();
    }
    false
}
