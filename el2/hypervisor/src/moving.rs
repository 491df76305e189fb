//! Save and move: while no vCPU runs, each guest's GIC is saved to bytes and rebuilt from them.
//!
//! 1. CPU 0's timer asks for it, and kicks the other CPUs.
//! 2. Every CPU puts its vCPU aside and comes to [`stand_still`]. CPU 0 waits there for the others.
//! 3. CPU 0 moves the guests to new GICs. Messages that come meanwhile stay pending in the
//!    machine's controllers.
//! 4. CPU 0 lets the others go.

use crate::guest::guests;
use crate::interrupts;
use crate::scheduler::{self, NEVER};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use image_rt::{cpu, println};
use msi_types::Cpu;

/// Counter ticks between two moves; 0: guests are not moved.
static INTERVAL: AtomicU64 = AtomicU64::new(0);
/// The counter's value at the next one.
static NEXT: AtomicU64 = AtomicU64::new(NEVER);
static WANTED: AtomicBool = AtomicBool::new(false);
/// CPUs but the first that stand still.
static STANDING: AtomicUsize = AtomicUsize::new(0);
static MOVES: AtomicUsize = AtomicUsize::new(0);

/// Moves guests from now on, every so many milliseconds.
pub(crate) fn start(milliseconds: u64) {
    INTERVAL.store(milliseconds * cpu::ticks_per_millisecond(), SeqCst);
    set_next();
}

fn set_next() {
    NEXT.store(cpu::ticks() + INTERVAL.load(SeqCst), SeqCst);
}

/// The counter's value at the next move, for the CPU that moves.
pub(crate) fn deadline() -> u64 {
    if cpu::current() == 0 { NEXT.load(SeqCst) } else { NEVER }
}

/// Must the CPUs come to [`stand_still`]?
pub(crate) fn is_wanted() -> bool {
    WANTED.load(SeqCst)
}

/// The timer of a CPU fired.
pub(crate) fn on_timer() {
    if deadline() <= cpu::ticks() {
        NEXT.store(NEVER, SeqCst);
        WANTED.store(true, SeqCst);
        others().for_each(interrupts::kick);
    }
}

/// Stands still while guests are moved. The CPU that executes this has no vCPU.
pub(crate) fn stand_still() {
    if !is_wanted() {
        return;
    }
    if cpu::current() != 0 {
        STANDING.fetch_add(1, SeqCst);
        wait_until(|| !is_wanted());
        STANDING.fetch_sub(1, SeqCst);
        return;
    }
    let cpus = others().count();
    wait_until(|| STANDING.load(SeqCst) == cpus);
    for guest in guests().iter().filter(|guest| guest.end().is_none()) {
        // SAFETY: the others stand still, and each CPU has put its vCPU aside before.
        unsafe { guest.rebuild_interrupts() };
        MOVES.fetch_add(1, SeqCst);
    }
    WANTED.store(false, SeqCst);
    wait_until(|| STANDING.load(SeqCst) == 0);
    set_next();
    scheduler::set_timer();
}

/// Says how often guests were moved, if they were.
pub(crate) fn report() {
    if INTERVAL.load(SeqCst) != 0 {
        println!("hypervisor: {} moves", MOVES.load(SeqCst));
    }
}

fn others() -> impl Iterator<Item = Cpu> {
    (1..interrupts::irqchip().cpus().count() as u32).map(Cpu::new)
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        spin_loop();
    }
}
