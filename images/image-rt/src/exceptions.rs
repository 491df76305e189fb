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
            "stp q0, q1, [sp, #-(17 * 32)]!",
            "stp q2, q3, [sp, #32]",
            "stp q4, q5, [sp, #64]",
            "stp q6, q7, [sp, #96]",
            "stp q8, q9, [sp, #128]",
            "stp q10, q11, [sp, #160]",
            "stp q12, q13, [sp, #192]",
            "stp q14, q15, [sp, #224]",
            "stp q16, q17, [sp, #256]",
            "stp q18, q19, [sp, #288]",
            "stp q20, q21, [sp, #320]",
            "stp q22, q23, [sp, #352]",
            "stp q24, q25, [sp, #384]",
            "stp q26, q27, [sp, #416]",
            "stp q28, q29, [sp, #448]",
            "stp q30, q31, [sp, #480]",
            "mrs x9, fpsr",
            "mrs x10, fpcr",
            "str x9, [sp, #512]",
            "str x10, [sp, #520]",
            "bl {irq}",
            "ldr x9, [sp, #512]",
            "ldr x10, [sp, #520]",
            "msr fpsr, x9",
            "msr fpcr, x10",
            "ldp q30, q31, [sp, #480]",
            "ldp q28, q29, [sp, #448]",
            "ldp q26, q27, [sp, #416]",
            "ldp q24, q25, [sp, #384]",
            "ldp q22, q23, [sp, #352]",
            "ldp q20, q21, [sp, #320]",
            "ldp q18, q19, [sp, #288]",
            "ldp q16, q17, [sp, #256]",
            "ldp q14, q15, [sp, #224]",
            "ldp q12, q13, [sp, #192]",
            "ldp q10, q11, [sp, #160]",
            "ldp q8, q9, [sp, #128]",
            "ldp q6, q7, [sp, #96]",
            "ldp q4, q5, [sp, #64]",
            "ldp q2, q3, [sp, #32]",
            "ldp q0, q1, [sp], #(17 * 32)",
            "ldp x29, x30, [sp], #16",
            "ret",
            irq = sym irq,
        )
    }

    extern "C" fn serror_current(_: RegisterStateRef) {
        panic!("SError: a device or a memory access failed");
    }
}
