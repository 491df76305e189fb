//! Attacks by several vCPUs while all LPIs of the machine are pending at them. Each vCPU performs
//! random actions of the attack until the first vCPU ends it.

use crate::commands::{INVALL, VALID, enable, int, mapc, mapd, mapti};
use crate::machine::{self, GICD, Layout, OTHERS, QUEUE_BYTES, send};
use crate::random::Random;
use crate::stale::{self, DEVICE, LPIS};
use crate::turns::{self, Turns};
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
        stale::post_batch(layout, VCPUS, |collection| [INVALL[0], 0, collection, 0]);
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
    let number = number();
    if number == 0 {
        pend_all(layout);
    } else {
        machine::enable_interrupts();
        machine::set_lpis(layout, true);
        READY.fetch_or(1 << number, SeqCst);
        while !IS_PENDING.load(SeqCst) {
            cpu::wait_for_interrupt();
        }
    }
    let mut random = Random::here();
    let mut own = Turns::until(MILLISECONDS);
    while !IS_DONE.load(SeqCst) {
        turns.next();
        actions[random.below(actions.len() as u64) as usize](layout);
        if number == 0 && !own.next() {
            IS_DONE.store(true, SeqCst);
        }
    }
}

/// Maps the LPIs to all vCPUs, makes them pending, and wakes the other vCPUs.
fn pend_all(layout: Layout) {
    enable(layout, QUEUE_BYTES);
    stale::configure(layout);
    while READY.load(SeqCst).count_ones() + 1 < VCPUS as u32 {}
    stale::post(layout, VCPUS, |vcpu| mapc(vcpu, vcpu));
    stale::post(layout, 1, |_| mapd(DEVICE, 16, VALID));
    stale::post(layout, LPIS, |event| {
        let [opcode, event_and_lpi, ..] = mapti(DEVICE, event, event);
        [opcode, event_and_lpi, event % VCPUS, 0]
    });
    stale::post(layout, LPIS, |event| int(DEVICE, event));
    IS_PENDING.store(true, SeqCst);
    send(0, OTHERS);
}
