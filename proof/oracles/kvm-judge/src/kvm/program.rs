//! The guest's program. The program performs the operations stored in memory, or acknowledges
//! interrupts.
//!
//! The program has no stack, takes no exceptions, and exits only by storing to an unmapped address.

use crate::layout::PROGRAM;
use std::arch::global_asm;

global_asm!(
    ".pushsection .rodata.kvm_judge_program, \"a\"",
    ".balign 8",
    ".globl kvm_judge_program, kvm_judge_program_end",
    "kvm_judge_program:",
    // x0: address of the next operation. x4: address for the report.
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
    ".org kvm_judge_program + 1 * 128",
    "nop",
    "msr S3_0_C4_C6_0, x0",   // ICC_PMR_EL1
    "msr S3_0_C12_C12_3, x1", // ICC_BPR1_EL1
    "mov x2, #1",
    "msr S3_0_C12_C12_7, x2", // ICC_IGRPEN1_EL1
    "isb",
    "str wzr, [x4]",
    "b .",
    // x4: address for the report.
    ".org kvm_judge_program + 2 * 128",
    "nop",
    "mrs x0, S3_0_C12_C12_0", // ICC_IAR1_EL1
    "dsb sy",
    "str w0, [x4]",
    "b .",
    // x0: INTID. x4: address for the report.
    ".org kvm_judge_program + 3 * 128",
    "nop",
    "msr S3_0_C12_C12_1, x0", // ICC_EOIR1_EL1
    "isb",
    "str wzr, [x4]",
    "b .",
    // x4: address for the report.
    ".org kvm_judge_program + 4 * 128",
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
    #[link_name = "kvm_judge_program_end"]
    static END: u8;
}

/// Entry points of the program, [`ENTRY_BYTES`] apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// Performs operations.
    Operate,
    /// Configures the CPU interface.
    Configure,
    /// Acknowledges an interrupt without ending it.
    Take,
    /// Ends an interrupt.
    End,
    /// Acknowledges and ends interrupts.
    Acknowledge,
}

const ENTRY_BYTES: u64 = 128;

impl Entry {
    /// Returns the entry point's address in the guest's memory.
    pub(super) const fn address(self) -> u64 {
        PROGRAM + ENTRY_BYTES * self as u64
    }
}

/// Returns the program's bytes, which must be placed at [`PROGRAM`].
pub(super) fn bytes() -> &'static [u8] {
    let length = (&raw const END).addr() - (&raw const BEGIN).addr();
    // SAFETY: the bytes between the two labels are assembled above, into read-only data.
    unsafe { std::slice::from_raw_parts(&raw const BEGIN, length) }
}
