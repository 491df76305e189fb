//! Injects exceptions into the guest's EL1 (DDI 0487, D1.3.5).

use crate::context::{Context, EL1H_MASKED};
use crate::sysreg::{read_register, write_registers};

/// PSTATE.PAN: privileged accesses to user memory fault.
const NO_USER_ACCESS: u64 = 1 << 22;
/// `SCTLR_EL1.SPAN`: exceptions do not change PSTATE.PAN.
const KEEPS_PAN: u64 = 1 << 23;

/// `ESR_EL1` without the exception class: the instruction has 32 bits.
const LONG: u64 = 1 << 25;
/// Fault status code: external abort, not on a table walk.
const EXTERNAL: u64 = 0b01_0000;
/// Difference between the exception class for the same level and that for a lower level.
const SAME_LEVEL: u64 = 1;

/// Injects an undefined instruction exception.
pub fn undefined(context: &mut Context) {
    take(context, LONG, None);
}

/// Injects an external abort for a load or store that no device handles.
pub fn data_abort(context: &mut Context, address: u64) {
    abort(context, 0x24, address);
}

/// Injects an external abort for an instruction fetch from outside of memory.
pub fn fetch_abort(context: &mut Context, address: u64) {
    abort(context, 0x20, address);
}

fn abort(context: &mut Context, class_from_below: u64, address: u64) {
    let class = class_from_below + if is_at_el1(context) { SAME_LEVEL } else { 0 };
    take(context, class << 26 | LONG | EXTERNAL, Some(address));
}

/// Returns `true` if PSTATE.M is EL1t or EL1h.
fn is_at_el1(context: &Context) -> bool {
    context.pstate & 0b1_1100 == 0b0_0100
}

fn take(context: &mut Context, syndrome: u64, address: Option<u64>) {
    // SAFETY: EL2 does not use these registers, which belong to the guest.
    unsafe {
        write_registers! {
            "esr_el1": syndrome,
            "elr_el1": context.pc,
            "spsr_el1": context.pstate,
        }
        if let Some(address) = address {
            write_registers! { "far_el1": address }
        }
    }
    context.pc = read_register!("vbar_el1").wrapping_add(vector(context.pstate));
    let pan = if read_register!("sctlr_el1") & KEEPS_PAN == 0 {
        NO_USER_ACCESS
    } else {
        context.pstate & NO_USER_ACCESS
    };
    context.pstate = EL1H_MASKED | pan;
}

/// Returns the offset of the vector for a synchronous exception from this PSTATE.
fn vector(pstate: u64) -> u64 {
    match pstate & 0b1_1111 {
        0b0_0100 => 0,
        0b0_0101 => 0x200,
        mode if mode & 0b1_0000 != 0 => 0x600,
        _ => 0x400,
    }
}
