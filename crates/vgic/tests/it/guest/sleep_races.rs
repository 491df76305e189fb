//! A test in which interrupts arrive on other threads just as a vCPU falls asleep. No wake-up may be
//! lost.

use super::sleep::{SPI, pulse};
use doorbell_test_support::guest::Machine;
use gic_arch::icc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use vgic::{Sleep, VgicConfig};

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
