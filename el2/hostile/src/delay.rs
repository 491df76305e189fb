//! Delays like Linux's `__delay`: uses WFIT if the ID register reports it, and then polls the
//! counter.

use crate::machine;
use core::arch::asm;
use doorbell_facts::{Fact, HostileFact, Means};
use image_rt::{cpu, power, println, read_register};

/// Milliseconds after which the timer's interrupt ends a WFIT whose timeout was lost.
const RESCUE: u64 = 20;

/// Delays for this many microseconds, and prints how long that took.
pub(crate) fn run(microseconds: u64) -> ! {
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
