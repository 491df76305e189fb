//! The attacks, by name. Each attack runs until its time is up.

use crate::exceptions;
use crate::machine::{self, GICD, GICR, ITS, OTHERS, send};
use crate::random::Random;
use crate::turns::{Attack, Turns};
use crate::{commands, crowd, device, fixed, leaks, messages, registers};
use core::arch::asm;
use image_rt::cpu;

const ATTACKS: &[(&str, Attack)] = &[
    ("registers", registers::any),
    ("state-registers", registers::of_state),
    ("system-registers", system_registers),
    ("undescribed-accesses", undescribed_accesses),
    ("calls", calls),
    ("fixed-devices", fixed::attack),
    ("timer", timer),
    ("physical-timer", physical_timer),
    ("sgis", sgis),
    ("commands", commands::meant),
    ("overlapping-tables", commands::overlapping),
    ("absent-tables", commands::absent),
    ("interrupts-to-itself", commands::to_itself),
    ("invalidations", commands::invalidations),
    ("moves", commands::moves),
    ("mappings", commands::mappings),
    ("stale-cleared", crowd::stale_cleared),
    ("stale-moved", crowd::stale_moved),
    ("stale-discarded", crowd::stale_discarded),
    ("crowd-toggles", crowd::toggles),
    ("crowd-power", crowd::power),
    ("crowd-invalidations", crowd::invalidations),
    ("many-pending", registers::many_pending),
    ("stain", leaks::stain),
    ("enables", commands::enables),
    ("spin", spin),
    ("wake-ups", wake_ups),
    ("devices", device::attack),
    ("line", device::line),
    ("messages", messages::attack),
];

pub(crate) fn named(name: &str) -> Option<Attack> {
    ATTACKS.iter().find(|(known, _)| *known == name).map(|(_, attack)| *attack)
}

/// Reads arbitrary system registers, and writes registers whose encodings resemble those of the CPU
/// interface.
fn system_registers(turns: &mut Turns) {
    /// CRm and Op2 of `ICC_BPR<n>_EL1`. QEMU 10.0 fails an assertion if a value's three low bits
    /// are zero and other bits are not (`hw/intc/arm_gicv3_cpuif.c`, `icv_gprio_mask`).
    const BPR: [u32; 2] = [8 << 3 | 3, 12 << 3 | 3];
    machine::enable_interrupts();
    let mut random = Random::here();
    while turns.next() {
        // Op0, Op1, CRn, CRm, Op2.
        let any = 2 << 14 | random.below(1 << 15) as u32;
        exceptions::system_register(any, 0, true);
        let (crm, op2) = (8 + random.below(5) as u32, random.below(8) as u32);
        let interface = 3 << 14 | 12 << 7 | crm << 3 | op2;
        let value = random.value();
        let value = if BPR.contains(&(interface & 0x7f)) { value & 7 } else { value };
        exceptions::system_register(interface, value, false);
    }
}

/// Executes instructions whose exits have no valid syndrome. They access devices, unmapped
/// addresses, and addresses behind the guest's RAM.
fn undescribed_accesses(turns: &mut Turns) {
    /// An address of RAM on `virt`, where the guest has none.
    const FOREIGN: u64 = 0x5100_0000;
    let mut random = Random::here();
    while turns.next() {
        let offset = random.below(0x1_0000) & !7;
        let base = [GICD, GICR, ITS, 0x0b00_0000, FOREIGN][random.below(5) as usize];
        exceptions::access(base + offset);
        exceptions::call(FOREIGN + offset);
    }
}

/// Executes HVC and SMC with arbitrary function numbers and arguments, except for function numbers
/// that end or stop the vCPU.
fn calls(turns: &mut Turns) {
    /// CPU_SUSPEND, CPU_OFF, SYSTEM_OFF, SYSTEM_RESET, SYSTEM_SUSPEND (DEN 0022).
    const AVOIDED: [u64; 5] = [1, 2, 8, 9, 14];
    let mut random = Random::here();
    while turns.next() {
        let number = random.below(24);
        let base =
            [0x8400_0000, 0xc400_0000, 0x8000_0000, random.value()][random.below(4) as usize];
        let function = if AVOIDED.contains(&number) { base } else { base + number };
        let arguments = [random.value(), random.value(), random.value()];
        for conduit in [true, false] {
            call(conduit, function, arguments);
        }
    }
}

fn call(by_hvc: bool, function: u64, [first, second, third]: [u64; 3]) {
    macro_rules! call {
        ($instruction:literal) => {
            // SAFETY: none of these calls ends the guest or a vCPU.
            unsafe {
                asm!(
                    $instruction,
                    inout("x0") function => _,
                    inout("x1") first => _,
                    inout("x2") second => _,
                    inout("x3") third => _,
                    clobber_abi("C"),
                );
            }
        };
    }
    if by_hvc { call!("hvc #0") } else { call!("smc #0") }
}

/// Runs a timer that never stops firing: its interrupt is handled, but its deadline stays in the
/// past.
fn timer(turns: &mut Turns) {
    machine::enable_interrupts();
    cpu::start_virtual_timer();
    while turns.next() {
        machine::take();
        cpu::start_virtual_timer();
    }
}

/// Runs the physical timer in the same way.
fn physical_timer(turns: &mut Turns) {
    machine::enable_interrupts();
    while turns.next() {
        cpu::start_physical_timer_at(0);
        machine::take();
    }
}

/// Sends SGIs to every vCPU, and handles the SGIs that arrive.
fn sgis(turns: &mut Turns) {
    machine::enable_interrupts();
    while turns.next() {
        for sgi in 0..16 {
            for target in [OTHERS, 0xffff] {
                send(sgi, target);
            }
            machine::take();
        }
    }
}

/// Computes without causing any exit.
fn spin(turns: &mut Turns) {
    while turns.next() {}
}

/// Sends an SGI to all other vCPUs, then sleeps until another vCPU sends an SGI or the timer fires.
fn wake_ups(turns: &mut Turns) {
    machine::enable_interrupts();
    while turns.next() {
        send(0, OTHERS);
        cpu::start_virtual_timer_in(1);
        cpu::wait_for_interrupt();
        machine::take();
    }
}
