//! Save and move: while no vCPU runs, each guest's GIC is saved to bytes and rebuilt from them. A
//! move has four steps:
//!
//! 1. CPU 0's timer requests the move, and CPU 0 kicks the other CPUs.
//! 2. Every CPU unloads its vCPU and calls [`stand_still`], where CPU 0 waits for the others.
//! 3. CPU 0 moves the guests to new GICs. Messages that arrive now stay pending in the machine's
//!    controllers.
//! 4. CPU 0 releases the other CPUs.

use crate::irqchip;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use doorbell_facts::{Fact, HypervisorFact};
use el2_cpu::NEVER;
use image_rt::{cpu, println};
use msi_types::Cpu;

/// Counter ticks between two moves. The value 0 means that guests are not moved.
static INTERVAL: AtomicU64 = AtomicU64::new(0);
/// Counter value at the next move.
static NEXT: AtomicU64 = AtomicU64::new(NEVER);
static WANTED: AtomicBool = AtomicBool::new(false);
/// Number of CPUs, not counting the first, that are paused for a move.
static STANDING: AtomicUsize = AtomicUsize::new(0);
static MOVES: AtomicU64 = AtomicU64::new(0);
/// Number of moves after which more memory was in use than before.
static GROWN: AtomicU64 = AtomicU64::new(0);

/// Starts moving guests every `milliseconds`.
pub(crate) fn start(milliseconds: u64) {
    INTERVAL.store(milliseconds * cpu::ticks_per_millisecond(), SeqCst);
    set_next();
}

fn set_next() {
    NEXT.store(cpu::ticks() + INTERVAL.load(SeqCst), SeqCst);
}

/// Returns the counter value at the next move, for the CPU in charge of moves.
pub(crate) fn deadline() -> u64 {
    if cpu::current() == 0 { NEXT.load(SeqCst) } else { NEVER }
}

/// Returns `true` if the CPUs must call [`stand_still`].
pub(crate) fn is_wanted() -> bool {
    WANTED.load(SeqCst)
}

/// Requests a move if its deadline has passed. Called when a CPU's timer fires.
pub(crate) fn on_timer() {
    if deadline() <= cpu::ticks() {
        NEXT.store(NEVER, SeqCst);
        WANTED.store(true, SeqCst);
        others().for_each(irqchip::kick);
    }
}

/// Pauses the calling CPU while guests are moved. No vCPU may be loaded on the calling CPU. The
/// first CPU calls `move_guests`, which returns the number of moved guests. If the function returns
/// `true`, the caller must set its timer.
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

/// Counts a move after which `bytes` more of the heap are in use, and prints the first one. How
/// much memory a restored GIC needs depends on the guest, so this must not stop the hypervisor.
pub(crate) fn note_growth(bytes: usize) {
    if bytes > 0 && GROWN.fetch_add(1, SeqCst) == 0 {
        println!("hypervisor: a restored GIC uses {bytes} bytes more than the saved one");
    }
}

/// Prints the number of moves, if guests are moved.
pub(crate) fn report() {
    if INTERVAL.load(SeqCst) != 0 {
        let times = MOVES.load(SeqCst);
        let grown = GROWN.load(SeqCst);
        println!("{}", Fact::from(HypervisorFact::Moved { times, grown }));
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
