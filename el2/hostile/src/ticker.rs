//! A guest that only waits for its timer interrupts, which must be on time.

use crate::machine;
use core::arch::asm;
use doorbell_facts::{Fact, HostileFact};
use image_rt::{cpu, power, println};

/// Milliseconds from a tick to the next deadline, and the number of ticks after which this period
/// has doubled. The period grows so that deadlines are spread over the turns of other guests.
const PERIOD: u64 = 3;
const SHIFT: u64 = 12;
/// Virtual timer INTID (DEN 0094).
const TIMER: u64 = 27;

/// Handles `ticks` ticks, and prints how late they were.
pub(crate) fn run(ticks: u64) -> ! {
    cpu::irq_save();
    machine::enable_interrupts();
    let period = PERIOD * cpu::ticks_per_millisecond();
    let (mut worst, mut sum) = (0, 0);
    let mut deadline = cpu::ticks() + period;
    for tick in 0..ticks {
        let late = tick_at(deadline);
        worst = worst.max(late);
        sum += late;
        deadline = cpu::ticks() + period + period * tick / SHIFT;
    }
    let nanoseconds = |ticks: u64| ticks * 1_000_000 / cpu::ticks_per_millisecond();
    let (latest, mean) = (nanoseconds(worst), nanoseconds(sum / ticks.max(1)));
    println!("{}", Fact::from(HostileFact::Ticked { ticks, latest, mean }));
    power::system_off()
}

/// Waits for the timer interrupt and handles it. Returns its delay in counter ticks.
fn tick_at(deadline: u64) -> u64 {
    // SAFETY: the interrupt is handled below.
    unsafe {
        asm!(
            "msr cntv_cval_el0, {deadline}",
            "msr cntv_ctl_el0, {enable}",
            "isb",
            deadline = in(reg) deadline,
            enable = in(reg) 1_u64,
            options(nostack, preserves_flags),
        );
    }
    loop {
        cpu::wait_for_interrupt();
        let late = cpu::ticks().saturating_sub(deadline);
        let intid = machine::acknowledge();
        // WFI may end without an interrupt, because it is only a hint (DDI 0487, C6.2).
        if intid == machine::NONE {
            continue;
        }
        cpu::stop_virtual_timer();
        machine::end(intid);
        if intid == TIMER {
            return late;
        }
    }
}
