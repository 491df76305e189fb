//! Attacks by several vCPUs while as many LPIs are pending at them as their tables have. In some,
//! each vCPU performs random actions until the first vCPU ends the attack. In others, the first
//! vCPU takes the LPIs of a victim away again, and then wakes it: its next entries are attacked.

use crate::commands::{
    COMMAND_BYTES, INVALL, VALID, Words, enable, int, mapc, mapd, mapti, movall,
};
use crate::machine::{self, GICD, Layout, OTHERS, QUEUE_BYTES, send};
use crate::random::Random;
use crate::turns::{self, Turns};
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use gic_arch::gits;
use image_rt::cpu;
use image_rt::power::{self, CpuStack};
use spin::Once;

type Action = fn(Layout);

/// Number of vCPUs.
const VCPUS: u64 = 4;
/// vCPU that turns itself off, and that the first vCPU turns on again.
const FLICKERING: u64 = VCPUS - 1;
/// vCPU whose entries are attacked.
const VICTIM: u64 = 1;
const DEVICE: u64 = 1;
/// Number of LPIs with 16 INTID bits.
const LPIS: u64 = 0x1_0000 - 8192;
/// Number of priorities of the LPIs.
const PRIORITIES: u8 = 4;
const BATCH: u64 = QUEUE_BYTES / COMMAND_BYTES - 1;
/// Duration in milliseconds, once all LPIs are pending.
const MILLISECONDS: u64 = 60;

/// Numbers of the vCPUs that have enabled their LPIs, as bits.
static READY: AtomicU64 = AtomicU64::new(0);
static IS_PENDING: AtomicBool = AtomicBool::new(false);
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// Enables and disables LPIs, the ITS and the distributor.
pub(crate) fn toggles(turns: &mut Turns) {
    let off: [Action; 3] = [
        |layout| machine::set_lpis(layout, false),
        |_| machine::write_its(gits::CTLR.offset(), 0),
        |_| machine::write(GICD, 4, 0x10),
    ];
    let on: [Action; 3] = [
        |layout| machine::set_lpis(layout, true),
        |_| machine::write_its(gits::CTLR.offset(), 1),
        |_| machine::write(GICD, 4, 0x12),
    ];
    attack(turns, &[off[0], on[0], off[1], on[1], off[2], on[2], |_| machine::take()]);
}

/// Sends SGIs to all vCPUs, and turns a vCPU off and on.
pub(crate) fn power(turns: &mut Turns) {
    attack(turns, &[broadcast, turn_off, turn_on, |_| machine::take()]);
}

/// Changes and rereads all configurations, and sends SGIs to all vCPUs.
pub(crate) fn invalidations(turns: &mut Turns) {
    attack(turns, &[invall, broadcast, |_| machine::take()]);
}

fn broadcast(_: Layout) {
    (0..16).for_each(|sgi| send(sgi, OTHERS));
}

/// Disables the LPIs or changes their priority, and posts INVALL for each collection, without
/// waiting.
fn invall(layout: Layout) {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    if number() == 0 {
        let times = TIMES.fetch_add(1, SeqCst) as u8;
        machine::fill(layout.configuration, LPIS, times << 4 | times & 1);
        post_batch(layout, VCPUS, |collection| [INVALL[0], 0, collection, 0]);
    }
}

/// Turns the flickering vCPU off.
fn turn_off(_: Layout) {
    if number() == FLICKERING {
        power::cpu_off();
    }
}

/// Turns the flickering vCPU on if it is off. Only the first vCPU may do this, because they would
/// share the vCPU's stack.
fn turn_on(_: Layout) {
    static STACK: Once<CpuStack> = Once::new();
    if number() == 0 && power::is_off(FLICKERING) {
        let stack = *STACK.call_once(CpuStack::new);
        power::cpu_on(FLICKERING as usize, FLICKERING, stack, turns::attack_and_turn_off)
            .expect("a vCPU could not be turned on");
    }
}

/// Returns the number of this vCPU.
fn number() -> u64 {
    cpu::mpidr() & 0xff
}

/// Makes the LPIs pending at all vCPUs, and performs random actions on each.
fn attack(turns: &mut Turns, actions: &[Action]) {
    let layout = Layout::apart();
    if number() == 0 {
        pend(layout, 0..VCPUS);
        IS_PENDING.store(true, SeqCst);
        send(0, OTHERS);
    } else {
        wait(layout, || (), &IS_PENDING);
    }
    let mut random = Random::here();
    let mut own = Turns::until(MILLISECONDS);
    while !IS_DONE.load(SeqCst) {
        turns.next();
        actions[random.below(actions.len() as u64) as usize](layout);
        if number() == 0 && !own.next() {
            IS_DONE.store(true, SeqCst);
        }
    }
}

/// Enables this vCPU's LPIs, calls `prepare`, and sleeps until the first vCPU has set the flag.
fn wait(layout: Layout, prepare: fn(), flag: &AtomicBool) {
    machine::enable_interrupts();
    machine::set_lpis(layout, true);
    prepare();
    READY.fetch_or(1 << number(), SeqCst);
    while !flag.load(SeqCst) {
        cpu::wait_for_interrupt();
    }
}

/// Maps the LPIs, with several priorities, to these vCPUs in turn, and makes them pending.
fn pend(layout: Layout, vcpus: Range<u64>) {
    let (first, count) = (vcpus.start, vcpus.end - vcpus.start);
    enable(layout, QUEUE_BYTES);
    for lpi in 0..LPIS {
        let priority = (lpi as u8 % PRIORITIES) << 5;
        machine::fill(layout.configuration + lpi, 1, priority | 1);
    }
    READY.fetch_or(1, SeqCst);
    let all = vcpus.fold(0, |bits, vcpu| bits | 1 << vcpu);
    while READY.load(SeqCst) & all != all {}
    post(layout, count, |collection| mapc(collection, first + collection));
    post(layout, 1, |_| mapd(DEVICE, 16, VALID));
    post(layout, LPIS, |event| {
        let [opcode, event_and_lpi, ..] = mapti(DEVICE, event, event);
        [opcode, event_and_lpi, event % count, 0]
    });
    post(layout, LPIS, |event| int(DEVICE, event));
}

/// Posts commands, and waits until they have been executed.
fn post(layout: Layout, count: u64, command: impl Fn(u64) -> Words) {
    for first in (0..count).step_by(BATCH as usize) {
        let end = post_batch(layout, BATCH.min(count - first), |at| command(first + at));
        while machine::read_its(gits::CREADR.offset()) & !0x1f != end {}
    }
}

/// Posts up to [`BATCH`] commands. Returns `GITS_CREADR` after their execution.
fn post_batch(layout: Layout, count: u64, command: impl Fn(u64) -> Words) -> u64 {
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

/// Disables Group 1, so that LPIs stay pending.
fn disable_group() {
    // SAFETY: the attack takes no interrupts.
    unsafe { asm!("msr icc_igrpen1_el1, xzr", "isb", options(nostack)) };
}

/// Makes LPIs pending at the victim, executes `count` commands that take them away, and wakes the
/// victim. The other vCPUs only enable their LPIs and sleep.
fn take_away(turns: &mut Turns, count: u64, command: impl Fn(u64) -> Words) {
    let layout = Layout::apart();
    if number() != 0 {
        return wait(layout, disable_group, &IS_DONE);
    }
    pend(layout, VICTIM..VICTIM + 1);
    disable_group();
    post(layout, count, command);
    image_rt::println!("took the LPIs away");
    IS_DONE.store(true, SeqCst);
    send(0, OTHERS);
    while turns.next() {}
}

/// Clears each LPI.
pub(crate) fn stale_cleared(turns: &mut Turns) {
    take_away(turns, LPIS, |event| [0x04 | DEVICE << 32, event, 0, 0]);
}

/// Moves all LPIs to the first vCPU with MOVALL.
pub(crate) fn stale_moved(turns: &mut Turns) {
    take_away(turns, 1, |_| movall(VICTIM, 0));
}

/// Discards each event.
pub(crate) fn stale_discarded(turns: &mut Turns) {
    take_away(turns, LPIS, |event| [0x0f | DEVICE << 32, event, 0, 0]);
}
