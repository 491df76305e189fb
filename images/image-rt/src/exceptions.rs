//! Handles exceptions. Interrupts call the image's handler; any other exception prints a report and
//! ends the image.

use crate::read_register;
use aarch64_rt::{ExceptionHandlers, RegisterStateRef};
use core::arch::naked_asm;
use spin::Once;

static IRQ: Once<fn()> = Once::new();

/// Sets the interrupt handler of all CPUs. Must be called once, before interrupts are unmasked.
pub fn set_irq_handler(handler: fn()) {
    IRQ.call_once(|| handler);
}

extern "C" fn irq() {
    if let Some(handler) = IRQ.get() {
        handler();
    }
}

/// Numbers of the vector registers, for the assembler's `.irp`.
macro_rules! vector_registers {
    () => {
        "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
    };
}

/// Exception handlers for the vectors.
#[derive(Debug)]
pub struct Handlers;

impl ExceptionHandlers for Handlers {
    extern "C" fn sync_current(state: RegisterStateRef) {
        let (esr, far) = match crate::cpu::level() {
            crate::cpu::Level::El1 => (read_register!("esr_el1"), read_register!("far_el1")),
            crate::cpu::Level::El2 => (read_register!("esr_el2"), read_register!("far_el2")),
        };
        panic!(
            "synchronous exception: ESR {esr:#x}, FAR {far:#x}, PC {:#x}, LR {:#x}",
            state.elr, state.sp
        );
    }

    /// The vectors save the general-purpose registers. This function also saves the vector
    /// registers, because handlers may use them if the target has them.
    #[unsafe(naked)]
    extern "C" fn irq_current(_: RegisterStateRef) {
        naked_asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "stp x29, x30, [sp, #-16]!",
            "sub sp, sp, #(17 * 32)",
            concat!(".irp n, ", vector_registers!()),
            "str q\\n, [sp, #16 * \\n]",
            ".endr",
            "mrs x9, fpsr",
            "mrs x10, fpcr",
            "str x9, [sp, #512]",
            "str x10, [sp, #520]",
            "bl {irq}",
            "ldr x9, [sp, #512]",
            "ldr x10, [sp, #520]",
            "msr fpsr, x9",
            "msr fpcr, x10",
            concat!(".irp n, ", vector_registers!()),
            "ldr q\\n, [sp, #16 * \\n]",
            ".endr",
            "add sp, sp, #(17 * 32)",
            "ldp x29, x30, [sp], #16",
            "ret",
            irq = sym irq,
        )
    }

    extern "C" fn serror_current(_: RegisterStateRef) {
        panic!("SError: a device or a memory access failed");
    }
}
