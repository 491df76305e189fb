//! Guests that measure time: one only waits for its timer interrupts, which must be on time, and
//! one delays like Linux's `__delay`, which uses WFIT if the ID register reports it, and then polls
//! the counter.

use crate::machine;
use core::arch::asm;
use doorbell_facts::{Fact, HostileFact, Means};
use image_rt::{cpu, power, println, read_register};

/// Milliseconds from a tick to the next deadline, and the number of ticks after which this period
/// has doubled. The period grows so that deadlines are spread over the time slices of other guests.
const PERIOD: u64 = 3;
const SHIFT: u64 = 12;

/// A timer of this vCPU. Both compare with the same counter: a hypervisor must not show the guest
/// two different times.
pub(crate) struct Timer {
    /// INTID of its PPI (DEN 0094).
    intid: u64,
    start_at: fn(u64),
    stop: fn(),
}

pub(crate) const VIRTUAL: Timer =
    Timer { intid: 27, start_at: cpu::start_virtual_timer_at, stop: cpu::stop_virtual_timer };
pub(crate) const PHYSICAL: Timer =
    Timer { intid: 30, start_at: cpu::start_physical_timer_at, stop: cpu::stop_physical_timer };

/// Handles `ticks` ticks of a timer, and prints how late they were.
pub(crate) fn run(ticks: u64, timer: &Timer) -> ! {
    cpu::irq_save();
    machine::enable_interrupts();
    let period = PERIOD * cpu::ticks_per_millisecond();
    let (mut worst, mut sum) = (0, 0);
    let mut deadline = cpu::ticks() + period;
    for tick in 0..ticks {
        let late = timer.tick_at(deadline);
        worst = worst.max(late);
        sum += late;
        deadline = cpu::ticks() + period + period * tick / SHIFT;
    }
    let nanoseconds = |ticks: u64| ticks * 1_000_000 / cpu::ticks_per_millisecond();
    let (latest, mean) = (nanoseconds(worst), nanoseconds(sum / ticks.max(1)));
    println!("{}", Fact::from(HostileFact::Ticked { ticks, latest, mean }));
    power::system_off()
}

impl Timer {
    /// Waits for the timer interrupt and handles it. Returns its delay in counter ticks.
    fn tick_at(&self, deadline: u64) -> u64 {
        (self.start_at)(deadline);
        loop {
            cpu::wait_for_interrupt();
            let late = cpu::ticks().saturating_sub(deadline);
            let intid = machine::acknowledge();
            // WFI may end without an interrupt, because it is only a hint (DDI 0487, C6.2).
            if intid == machine::NONE {
                continue;
            }
            (self.stop)();
            machine::end(intid);
            if intid == self.intid {
                return late;
            }
        }
    }
}

/// Milliseconds after which the timer's interrupt ends a WFIT whose timeout was lost.
const RESCUE: u64 = 20;

/// Delays for this many microseconds, and prints how long that took.
pub(crate) fn delay(microseconds: u64) -> ! {
    cpu::irq_save();
    machine::enable_interrupts();
    let nanoseconds = |ticks: u64| ticks * 1_000_000 / cpu::ticks_per_millisecond();
    // ID_AA64ISAR2_EL1.WFxT: 2 means that WFET and WFIT are implemented.
    let has_timeouts = read_register!("S3_0_C0_C6_2") & 15 >= 2;
    cpu::start_virtual_timer_in(RESCUE);
    let start = cpu::ticks();
    let deadline = start + microseconds * cpu::ticks_per_millisecond() / 1000;
    if has_timeouts {
        // SAFETY: `WFIT X0` only waits until an interrupt arrives or the timeout expires. The
        // instruction is encoded by hand, because the assembler rejects WFIT if the feature is not
        // enabled.
        unsafe { asm!(".inst 0xd5031020", in("x0") deadline, options(nostack, preserves_flags)) };
    }
    while cpu::ticks() < deadline {}
    let (requested, took) = (microseconds * 1000, nanoseconds(cpu::ticks() - start));
    let by = if has_timeouts { Means::Wfit } else { Means::Counter };
    println!("{}", Fact::from(HostileFact::Delayed { requested, took, by }));
    power::system_off()
}
