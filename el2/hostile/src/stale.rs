//! Attacks by several vCPUs on the guest entries of one of them. The first vCPU makes as many LPIs
//! pending at the last vCPU as its tables have, takes them away again, and wakes it.

use crate::commands::{COMMAND_BYTES, VALID, Words, enable, int, mapc, mapd, mapti, movall};
use crate::machine::{self, Layout, OTHERS, QUEUE_BYTES};
use crate::turns::Turns;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use gic_arch::gits;
use image_rt::cpu;

pub(crate) const DEVICE: u64 = 1;
/// Number of LPIs with 16 INTID bits.
pub(crate) const LPIS: u64 = 0x1_0000 - 8192;
/// Number of priorities of the LPIs.
const PRIORITIES: u8 = 4;
const BATCH: u64 = QUEUE_BYTES / COMMAND_BYTES - 1;
/// vCPU whose entries are attacked.
const VICTIM: u64 = 1;

/// Posts commands, and waits until they have been executed.
pub(crate) fn post(layout: Layout, count: u64, command: impl Fn(u64) -> Words) {
    for first in (0..count).step_by(BATCH as usize) {
        let end = post_batch(layout, BATCH.min(count - first), |at| command(first + at));
        while machine::read_its(gits::CREADR.offset()) & !0x1f != end {}
    }
}

/// Posts up to [`BATCH`] commands. Returns `GITS_CREADR` after their execution.
pub(crate) fn post_batch(layout: Layout, count: u64, command: impl Fn(u64) -> Words) -> u64 {
    let slots = QUEUE_BYTES / COMMAND_BYTES;
    let at = (machine::read_its(gits::CREADR.offset()) & !0x1f) / COMMAND_BYTES;
    for slot in 0..count {
        let address = layout.queue + (at + slot) % slots * COMMAND_BYTES;
        machine::store(address, command(slot));
    }
    let end = (at + count) % slots * COMMAND_BYTES;
    machine::write_its(gits::CWRITER.offset(), end);
    end
}

/// Gives the LPIs several priorities.
pub(crate) fn configure(layout: Layout) {
    for lpi in 0..LPIS {
        let priority = (lpi as u8 % PRIORITIES) << 5;
        machine::fill(layout.configuration + lpi, 1, priority | 1);
    }
}

/// Disables Group 1, so that LPIs stay pending.
fn disable_group() {
    // SAFETY: the attack takes no interrupts.
    unsafe { asm!("msr icc_igrpen1_el1, xzr", "isb", options(nostack)) };
}

/// Makes LPIs pending at the victim, executes `count` commands that take them away, and wakes the
/// victim. The other vCPUs only enable their LPIs and sleep.
fn attack(turns: &mut Turns, count: u64, take: impl Fn(u64) -> Words) {
    static READY: AtomicU64 = AtomicU64::new(0);
    static IS_DONE: AtomicU64 = AtomicU64::new(0);
    let layout = Layout::apart();
    if cpu::mpidr() & 0xff != 0 {
        machine::enable_interrupts();
        machine::set_lpis(layout, true);
        disable_group();
        READY.fetch_or(1 << (cpu::mpidr() & 0xff), SeqCst);
        while IS_DONE.load(SeqCst) == 0 {
            cpu::wait_for_interrupt();
        }
        return;
    }
    enable(layout, QUEUE_BYTES);
    disable_group();
    configure(layout);
    while READY.load(SeqCst) & 1 << VICTIM == 0 {}
    post(layout, 1, |_| mapc(0, VICTIM));
    post(layout, 1, |_| mapd(DEVICE, 16, VALID));
    post(layout, LPIS, |event| mapti(DEVICE, event, event));
    post(layout, LPIS, |event| int(DEVICE, event));
    post(layout, count, take);
    image_rt::println!("took the LPIs away");
    IS_DONE.store(1, SeqCst);
    machine::send(0, OTHERS);
    while turns.next() {}
}

/// Clears each LPI.
pub(crate) fn cleared(turns: &mut Turns) {
    attack(turns, LPIS, |event| [0x04 | DEVICE << 32, event, 0, 0]);
}

/// Moves all LPIs to the first vCPU with MOVALL.
pub(crate) fn moved(turns: &mut Turns) {
    attack(turns, 1, |_| movall(VICTIM, 0));
}

/// Discards each event.
pub(crate) fn discarded(turns: &mut Turns) {
    attack(turns, LPIS, |event| [0x0f | DEVICE << 32, event, 0, 0]);
}
