//! Save and move: while no vCPU runs, each guest's GIC is saved to bytes and rebuilt from them.
//!
//! 1. CPU 0's timer asks for it, and kicks the other CPUs.
//! 2. Every CPU puts its vCPU aside and comes to [`stand_still`]. CPU 0 waits there for the others.
//! 3. CPU 0 moves the guests to new GICs. Messages that come meanwhile stay pending in the
//!    machine's controllers.
//! 4. CPU 0 lets the others go.

use crate::hypervisor_timer::NEVER;
use crate::irqchip;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use doorbell_facts::{Fact, HypervisorFact};
use image_rt::{cpu, println};
use msi_types::Cpu;

/// Counter ticks between two moves; 0: guests are not moved.
static INTERVAL: AtomicU64 = AtomicU64::new(0);
/// The counter's value at the next one.
static NEXT: AtomicU64 = AtomicU64::new(NEVER);
static WANTED: AtomicBool = AtomicBool::new(false);
/// CPUs but the first that stand still.
static STANDING: AtomicUsize = AtomicUsize::new(0);
static MOVES: AtomicU64 = AtomicU64::new(0);

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
        others().for_each(irqchip::kick);
    }
}

/// Stands still while guests are moved. The CPU that executes this has no vCPU. The first CPU calls
/// `move_guests`, which returns how many it moved, and must set its timer if this returns true.
pub(crate) fn stand_still(move_guests: impl FnOnce() -> usize) -> bool {
    if !is_wanted() {
        return false;
    }
    if cpu::current() != 0 {
        STANDING.fetch_add(1, SeqCst);
        wait_until(|| !is_wanted());
        STANDING.fetch_sub(1, SeqCst);
        return false;
    }
    let cpus = others().count();
    wait_until(|| STANDING.load(SeqCst) == cpus);
    MOVES.fetch_add(move_guests() as u64, SeqCst);
    WANTED.store(false, SeqCst);
    wait_until(|| STANDING.load(SeqCst) == 0);
    set_next();
    true
}

/// Says how often guests were moved, if they were.
pub(crate) fn report() {
    if INTERVAL.load(SeqCst) != 0 {
        let times = MOVES.load(SeqCst);
        println!("{}", Fact::from(HypervisorFact::Moved { times }));
    }
}

fn others() -> impl Iterator<Item = Cpu> {
    (1..irqchip::get().cpus().count() as u32).map(Cpu::new)
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        spin_loop();
    }
}
