//! Checks the vector registers. A hypervisor must preserve them for its guest across exits, and
//! while another vCPU uses the CPU.

use core::arch::asm;
use gic_arch::icc::Sgi;

macro_rules! all {
    () => {
        "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
    };
}

/// Fills all vector registers, makes the hypercall with this number, sends an SGI, and spins until
/// the counter reaches `end`. Interrupts must be masked.
///
/// # Panics
/// Panics if a vector register has changed.
// Don't inline this: the compiler doesn't know how long `.irp` makes the assembly, so branches
// across it in a large function would be out of range.
#[inline(never)]
pub(crate) fn outlast(call: u64, sgi: Sgi, end: u64) {
    let changed: u64;
    // SAFETY: the call has no effect, the SGI is sent through its register, and all changed
    // registers are declared.
    unsafe {
        asm!(
            "mov x20, #1",
            concat!(".irp n, ", all!()),
            "dup v\\n\\().2d, x20",
            "add x20, x20, #1",
            ".endr",
            "hvc #0",
            "msr icc_sgi1r_el1, x22",
            "2: isb",
            "mrs x21, cntvct_el0",
            "cmp x21, x23",
            "b.lo 2b",
            "mov x20, #1",
            "mov x24, #0",
            concat!(".irp n, ", all!()),
            "mov x21, v\\n\\().d[0]",
            "eor x21, x21, x20",
            "orr x24, x24, x21",
            "mov x21, v\\n\\().d[1]",
            "eor x21, x21, x20",
            "orr x24, x24, x21",
            "add x20, x20, #1",
            ".endr",
            inout("x0") call => _,
            in("x22") u64::from(sgi),
            in("x23") end,
            out("x20") _,
            out("x21") _,
            out("x24") changed,
            clobber_abi("C"),
            options(nostack),
        );
    }
    assert_eq!(changed, 0, "a vector register has changed");
}
