//! The guest's program. The program performs the operations stored in memory, or acknowledges
//! interrupts.
//!
//! The program has no stack, takes no exceptions, and exits only by storing to an unmapped address.

use crate::layout::PROGRAM;
use std::arch::global_asm;

global_asm!(
    ".pushsection .rodata.kvm_judge_program, \"a\"",
    ".balign 8",
    ".globl kvm_judge_program, kvm_judge_program_end, kvm_judge_operate, kvm_judge_configure",
    ".globl kvm_judge_take, kvm_judge_end, kvm_judge_acknowledge",
    "kvm_judge_program:",
    // x0: address of the next operation. x4: address for the report.
    "kvm_judge_operate:",
    "nop",
    "0: ldp x1, x2, [x0]",
    "ldr x3, [x0, #16]",
    "cbz x1, 9f",
    "cmp x1, #2",
    "b.lo 1f",
    "b.eq 2f",
    "cmp x1, #4",
    "b.lo 3f",
    "ldr x3, [x2]",
    "b 4f",
    "1: str w3, [x2]",
    "b 5f",
    "2: str x3, [x2]",
    "b 5f",
    "3: ldr w3, [x2]",
    "4: str x3, [x0, #16]",
    "5: dsb sy",
    "add x0, x0, #24",
    "b 0b",
    "9: str wzr, [x4]",
    "b .",
    // x0: priority mask. x1: binary point. x4: address for the report.
    "kvm_judge_configure:",
    "nop",
    "msr S3_0_C4_C6_0, x0",   // ICC_PMR_EL1
    "msr S3_0_C12_C12_3, x1", // ICC_BPR1_EL1
    "mov x2, #1",
    "msr S3_0_C12_C12_7, x2", // ICC_IGRPEN1_EL1
    "isb",
    "str wzr, [x4]",
    "b .",
    // x4: address for the report.
    "kvm_judge_take:",
    "nop",
    "mrs x0, S3_0_C12_C12_0", // ICC_IAR1_EL1
    "dsb sy",
    "str w0, [x4]",
    "b .",
    // x0: INTID. x4: address for the report.
    "kvm_judge_end:",
    "nop",
    "msr S3_0_C12_C12_1, x0", // ICC_EOIR1_EL1
    "isb",
    "str wzr, [x4]",
    "b .",
    // x4: address for the report.
    "kvm_judge_acknowledge:",
    "nop",
    "0: mrs x0, S3_0_C12_C12_0", // ICC_IAR1_EL1
    "dsb sy",
    "str w0, [x4]",
    "msr S3_0_C12_C12_1, x0", // ICC_EOIR1_EL1
    "isb",
    "b 0b",
    "kvm_judge_program_end:",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "kvm_judge_program"]
    static BEGIN: u8;
    #[link_name = "kvm_judge_operate"]
    static OPERATE: u8;
    #[link_name = "kvm_judge_configure"]
    static CONFIGURE: u8;
    #[link_name = "kvm_judge_take"]
    static TAKE: u8;
    #[link_name = "kvm_judge_end"]
    static FINISH: u8;
    #[link_name = "kvm_judge_acknowledge"]
    static ACKNOWLEDGE: u8;
    #[link_name = "kvm_judge_program_end"]
    static END: u8;
}

/// Returns the program's bytes, which must be placed at [`PROGRAM`].
pub(super) fn bytes() -> &'static [u8] {
    let length = offset(&raw const END);
    // SAFETY: the bytes between the two labels are assembled above, into read-only data.
    unsafe { std::slice::from_raw_parts(&raw const BEGIN, length) }
}

/// Returns the address of the code that performs operations.
pub(super) fn operate() -> u64 {
    PROGRAM + offset(&raw const OPERATE) as u64
}

/// Returns the address of the code that configures the CPU interface.
pub(super) fn configure() -> u64 {
    PROGRAM + offset(&raw const CONFIGURE) as u64
}

/// Returns the address of the code that acknowledges an interrupt without ending it.
pub(super) fn take() -> u64 {
    PROGRAM + offset(&raw const TAKE) as u64
}

/// Returns the address of the code that ends an interrupt.
pub(super) fn end() -> u64 {
    PROGRAM + offset(&raw const FINISH) as u64
}

/// Returns the address of the code that acknowledges interrupts.
pub(super) fn acknowledge() -> u64 {
    PROGRAM + offset(&raw const ACKNOWLEDGE) as u64
}

fn offset(label: *const u8) -> usize {
    label.addr() - (&raw const BEGIN).addr()
}
