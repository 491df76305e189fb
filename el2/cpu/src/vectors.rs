//! Entry to and exit from the guest: the exception vectors that EL2 uses while guests run, and the
//! code that switches registers.
//!
//! `enter_guest` saves the callee-saved registers on the stack, loads the guest's registers and
//! returns to the guest. On an exception from the guest, the vector finds the address of the
//! context on top of the stack, stores the registers in the context, and returns from
//! `enter_guest`.

use crate::context::Context;
use crate::registers::Floats;
use crate::syndrome::Trap;
use crate::sysreg::read_register;
use core::mem::offset_of;

/// Cause of an exit, by vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vector {
    /// An instruction of the guest; `ESR_EL2` contains the details.
    Synchronous,
    /// A physical interrupt.
    Interrupt,
    /// A physical SError.
    SystemError,
}

const SYNCHRONOUS: u64 = 0;
const INTERRUPT: u64 = 1;

unsafe extern "C" {
    static hypervisor_vectors: u8;
    fn enter_guest(context: *mut Context) -> u64;
    fn store_floats(floats: *mut Floats);
    fn load_floats(floats: *const Floats);
}

impl Floats {
    /// Stores the state of the vCPU that is loaded on this CPU.
    pub(crate) fn store(&mut self) {
        // SAFETY: writes only to `self`.
        unsafe { store_floats(self) };
    }

    /// Loads the state into the CPU's registers.
    pub(crate) fn load(&self) {
        // SAFETY: EL2 does not use these registers (see `install`).
        unsafe { load_floats(self) };
    }
}

/// Sets the vectors below as this CPU's exception vectors. Exceptions from EL2 itself are forwarded
/// to the program's vectors, `vector_table_el2`.
///
/// # Panics
/// Panics if the compiler may use vector registers: they belong to the guests.
#[expect(clippy::assertions_on_constants, reason = "the target decides, not this file")]
pub(crate) fn install() {
    assert!(
        !cfg!(target_feature = "neon"),
        "the hypervisor must be built for a *-softfloat target"
    );
    // SAFETY: the vector table below is complete.
    unsafe {
        core::arch::asm!(
            "msr vbar_el2, {}",
            "isb",
            in(reg) &raw const hypervisor_vectors,
            options(nostack, preserves_flags),
        );
    }
}

/// Runs the guest until it exits.
///
/// # Safety
/// This CPU's EL1 and stage 2 must belong to the guest, so that it can access only its own memory.
/// The CPU must be [prepared](crate::prepare), and interrupts must be masked.
#[inline]
pub unsafe fn enter(context: &mut Context) -> Vector {
    // SAFETY: the caller guarantees that EL1 and stage 2 belong to the guest; the context is
    // borrowed until the guest has exited.
    match unsafe { enter_guest(context) } {
        SYNCHRONOUS => Vector::Synchronous,
        INTERRUPT => Vector::Interrupt,
        _ => Vector::SystemError,
    }
}

impl Trap {
    /// Decodes the calling CPU's last exit. [`enter`] must have returned [`Vector::Synchronous`].
    #[inline]
    pub fn of_last_exit() -> Self {
        let (esr, far) = (read_register!("esr_el2"), read_register!("far_el2"));
        Self::decode(esr, far, read_register!("hpfar_el2"))
    }
}

core::arch::global_asm!(
    ".section .text.hypervisor_vectors, \"ax\"",
    ".balign 0x800",
    ".global hypervisor_vectors",
    "hypervisor_vectors:",
    // Exceptions from EL2: use the entries of the program's own table.
    ".set offset, 0",
    ".rept 8",
    "    b vector_table_el2 + offset",
    "    .balign 0x80",
    "    .set offset, offset + 0x80",
    ".endr",
    // Exceptions from the guest: AArch64, then AArch32 at EL0; each with Synchronous, IRQ, FIQ,
    // SError.
    ".irp cause, 0, 1, 1, 2, 0, 1, 1, 2",
    "    stp x0, x1, [sp, #-16]!",
    "    mov x1, #\\cause",
    "    b leave_guest",
    "    .balign 0x80",
    ".endr",
    // The target does not enable vector registers.
    ".arch_extension fp",
    ".arch_extension simd",
    ".macro vector_registers op:req",
    "    \\op q0, q1, [x0, #16]",
    "    \\op q2, q3, [x0, #48]",
    "    \\op q4, q5, [x0, #80]",
    "    \\op q6, q7, [x0, #112]",
    "    \\op q8, q9, [x0, #144]",
    "    \\op q10, q11, [x0, #176]",
    "    \\op q12, q13, [x0, #208]",
    "    \\op q14, q15, [x0, #240]",
    "    \\op q16, q17, [x0, #272]",
    "    \\op q18, q19, [x0, #304]",
    "    \\op q20, q21, [x0, #336]",
    "    \\op q22, q23, [x0, #368]",
    "    \\op q24, q25, [x0, #400]",
    "    \\op q26, q27, [x0, #432]",
    "    \\op q28, q29, [x0, #464]",
    "    \\op q30, q31, [x0, #496]",
    ".endm",
    // Registers x2 to x29, with the context in x0.
    ".macro middle_registers op:req",
    "    \\op x2, x3, [x0, #{registers} + 16]",
    "    \\op x4, x5, [x0, #{registers} + 32]",
    "    \\op x6, x7, [x0, #{registers} + 48]",
    "    \\op x8, x9, [x0, #{registers} + 64]",
    "    \\op x10, x11, [x0, #{registers} + 80]",
    "    \\op x12, x13, [x0, #{registers} + 96]",
    "    \\op x14, x15, [x0, #{registers} + 112]",
    "    \\op x16, x17, [x0, #{registers} + 128]",
    "    \\op x18, x19, [x0, #{registers} + 144]",
    "    \\op x20, x21, [x0, #{registers} + 160]",
    "    \\op x22, x23, [x0, #{registers} + 176]",
    "    \\op x24, x25, [x0, #{registers} + 192]",
    "    \\op x26, x27, [x0, #{registers} + 208]",
    "    \\op x28, x29, [x0, #{registers} + 224]",
    ".endm",
    // Registers x19 to x30, which the procedure call standard requires to be preserved.
    ".macro callers_registers op:req",
    "    \\op x19, x20, [sp, #16]",
    "    \\op x21, x22, [sp, #32]",
    "    \\op x23, x24, [sp, #48]",
    "    \\op x25, x26, [sp, #64]",
    "    \\op x27, x28, [sp, #80]",
    "    \\op x29, x30, [sp, #96]",
    ".endm",
    ".global store_floats",
    "store_floats:",
    "    vector_registers stp",
    "    mrs x9, fpsr",
    "    mrs x10, fpcr",
    "    stp x9, x10, [x0]",
    "    ret",
    ".global load_floats",
    "load_floats:",
    "    vector_registers ldp",
    "    ldp x9, x10, [x0]",
    "    msr fpsr, x9",
    "    msr fpcr, x10",
    "    ret",
    ".global enter_guest",
    "enter_guest:",
    "    sub sp, sp, #112",
    "    callers_registers stp",
    "    str x0, [sp]",
    "    ldp x9, x10, [x0, #{pc}]",
    "    msr elr_el2, x9",
    "    msr spsr_el2, x10",
    "    middle_registers ldp",
    "    ldr x30, [x0, #{registers} + 240]",
    "    ldp x0, x1, [x0, #{registers}]",
    "    eret",
    "    dsb nsh",
    "    isb",
    "leave_guest:",
    "    ldr x0, [sp, #16]",
    "    middle_registers stp",
    "    str x30, [x0, #{registers} + 240]",
    "    ldp x2, x3, [sp], #16",
    "    stp x2, x3, [x0, #{registers}]",
    "    mrs x9, elr_el2",
    "    mrs x10, spsr_el2",
    "    stp x9, x10, [x0, #{pc}]",
    "    callers_registers ldp",
    "    add sp, sp, #112",
    "    mov x0, x1",
    "    ret",
    registers = const offset_of!(Context, registers),
    pc = const offset_of!(Context, pc),
);
