//! Handles the exceptions that the hypervisor injects: counts each one and skips the instruction
//! that caused it. Also contains the attacks' unusual instructions: loads and stores whose traps
//! have no valid syndrome, and system register accesses that no vCPU may execute.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[unsafe(export_name = "hostile_exceptions")]
static EXCEPTIONS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static hostile_vectors: u8;
    fn hostile_accesses(address: u64);
    fn hostile_call(address: u64);
    fn hostile_word(value: u64) -> u64;
}

/// Sets this vCPU's exception vectors. Interrupts stay masked.
pub(crate) fn install() {
    // SAFETY: the vector table below is complete.
    unsafe {
        asm!(
            "msr vbar_el1, {}",
            "isb",
            in(reg) &raw const hostile_vectors,
            options(nostack, preserves_flags),
        );
    }
}

/// Returns the number of exceptions so far.
pub(crate) fn taken() -> u64 {
    EXCEPTIONS.load(Relaxed)
}

/// Executes loads and stores without a valid syndrome, at an address outside every guest's RAM.
pub(crate) fn access(address: u64) {
    // SAFETY: the access either aborts, and is then skipped, or accesses a device.
    unsafe { hostile_accesses(address) };
}

/// Jumps to an address outside every guest's RAM.
pub(crate) fn call(address: u64) {
    // SAFETY: the instruction fetch aborts, and execution continues in the caller.
    unsafe { hostile_call(address) };
}

/// Reads (MRS) or writes (MSR) a system register by the encoding in bits 20:5 of the instruction.
/// Writes are for registers of the GIC's CPU interface.
pub(crate) fn system_register(encoding: u32, value: u64, is_read: bool) -> u64 {
    let word = 0xd500_0000 | u32::from(is_read) << 21 | 1 << 20 | (encoding & 0xffff) << 5;
    let place = (&raw const hostile_word_place).cast_mut();
    // SAFETY: only `hostile_word` executes the patched instruction, and only this vCPU depends on
    // the instruction's operand. The instruction changes only x0 and the register that the caller
    // chose.
    unsafe {
        place.write_volatile(word);
        asm!(
            "dc cvau, {place}",
            "dsb ish",
            "ic ivau, {place}",
            "dsb ish",
            "isb",
            place = in(reg) place,
            options(nostack, preserves_flags),
        );
        hostile_word(value)
    }
}

unsafe extern "C" {
    static hostile_word_place: u32;
}

global_asm!(
    ".section .text.hostile, \"awx\"",
    ".arch_extension lse",
    ".balign 0x800",
    ".global hostile_vectors",
    "hostile_vectors:",
    ".rept 16",
    "    b hostile_exception",
    "    .balign 0x80",
    ".endr",
    // After a fetch abort, execution continues in the caller; after any other exception, at the
    // next instruction.
    "hostile_exception:",
    "    stp x0, x1, [sp, #-16]!",
    "    mrs x0, esr_el1",
    "    lsr x0, x0, #26",
    "    cmp x0, #0x21",
    "    mov x0, x30",
    "    b.eq 1f",
    "    mrs x0, elr_el1",
    "    add x0, x0, #4",
    "1:  msr elr_el1, x0",
    "    adrp x0, hostile_exceptions",
    "    add x0, x0, :lo12:hostile_exceptions",
    "    mov x1, #1",
    "    stadd x1, [x0]",
    "    ldp x0, x1, [sp], #16",
    "    eret",
    ".global hostile_accesses",
    "hostile_accesses:",
    "    mov x9, x0",
    "    ldp x1, x2, [x9]",
    "    stp x1, x2, [x9], #16",
    "    mov x9, x0",
    "    ldr x1, [x9], #8",
    "    mov x9, x0",
    "    str w1, [x9, #4]!",
    "    mov x9, x0",
    "    ldr q0, [x9]",
    "    str q0, [x9]",
    "    ld1 {{v0.16b, v1.16b}}, [x9]",
    "    ldxr x1, [x9]",
    "    stxr w2, x1, [x9]",
    "    ldaxr w1, [x9]",
    "    ldadd x1, x2, [x9]",
    "    cas x1, x2, [x9]",
    "    swp w1, w2, [x9]",
    "    ldar w1, [x9]",
    "    stlr w1, [x9]",
    "    ldr x1, [x9, #1]",
    "    str x1, [x9, #3]",
    "    prfm pldl1keep, [x9]",
    "    dc zva, x9",
    "    dc cvac, x9",
    "    dc civac, x9",
    "    dc ivac, x9",
    "    at s1e1w, x9",
    "    ret",
    ".global hostile_call",
    "hostile_call:",
    "    stp x29, x30, [sp, #-16]!",
    "    blr x0",
    "    ldp x29, x30, [sp], #16",
    "    ret",
    ".balign 64",
    ".global hostile_word",
    "hostile_word:",
    ".global hostile_word_place",
    "hostile_word_place:",
    "    nop",
    "    ret",
);
