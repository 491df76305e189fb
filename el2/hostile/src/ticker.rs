//! A guest that only waits for its timer interrupts, which must be on time.

use crate::machine;
use doorbell_facts::{Fact, HostileFact};
use image_rt::{cpu, power, println};

/// Milliseconds from a tick to the next deadline, and the number of ticks after which this period
/// has doubled. The period grows so that deadlines are spread over the time slices of other guests.
const PERIOD: u64 = 3;
const SHIFT: u64 = 12;

/// A timer of this vCPU. Both compare with the same counter: a hypervisor must not show the guest
/// two different times.
struct Timer {
    /// INTID of its PPI (DEN 0094).
    intid: u64,
    start_at: fn(u64),
    stop: fn(),
}

const VIRTUAL: Timer =
    Timer { intid: 27, start_at: cpu::start_virtual_timer_at, stop: cpu::stop_virtual_timer };
const PHYSICAL: Timer =
    Timer { intid: 30, start_at: cpu::start_physical_timer_at, stop: cpu::stop_physical_timer };

/// Handles `ticks` ticks of the virtual timer, and prints how late they were.
pub(crate) fn run_virtual(ticks: u64) -> ! {
    run(ticks, &VIRTUAL)
}

/// Handles `ticks` ticks of the physical timer, and prints how late they were.
pub(crate) fn run_physical(ticks: u64) -> ! {
    run(ticks, &PHYSICAL)
}

fn run(ticks: u64, timer: &Timer) -> ! {
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
