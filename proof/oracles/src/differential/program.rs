//! The program for QEMU's CPUs, which acknowledges pending interrupts on request.
//!
//! With two security states, it starts as firmware, which assigns all interrupts except those in
//! [`SECURE`](super::world::SECURE) to the Non-secure state. The program then unmasks all
//! priorities and groups, and configures `ICC_EOIR<n>_EL1` to drop the priority only. On request,
//! the program reads `ICC_IAR1_EL1` and, if no Group 1 interrupt is pending, `ICC_IAR0_EL1`, until
//! neither has a pending interrupt. Interrupts that have an active state stay active, so that a
//! level that remains asserted is not acknowledged twice.

use super::address_map::CPUS;

/// Address of the program that the CPUs execute.
pub(super) const PROGRAM_BASE: u64 = 0x4700_0000;

/// Returns the address of the word that makes a CPU start acknowledging interrupts. Software sets
/// the word to a nonzero value, and the CPU clears it when it has finished. The next word holds the
/// number of acknowledgments, which are listed [`LIST`] bytes after the first word.
pub(super) const fn mailbox(cpu: u16) -> u64 {
    0x4701_0000 + cpu as u64 * 0x1000
}

/// Offset from the first word of the mailbox to a list of pairs of words: INTID, and the running
/// priority after the acknowledgment.
pub(super) const LIST: u64 = 16;

/// Maximum number of acknowledgments per request.
pub(super) const MOST: usize = 256;

const _: () = assert!(CPUS == 3, "the program starts two CPUs in addition to the first");

/// With two security states, all CPUs start at this address. With one security state, only the
/// first CPU starts here.
pub(super) const PROGRAM: [u32; 97] = [
    // EL3 exists only with two security states. In that case, CPUs start here as firmware.
    0xd53800a0, // mrs x0, mpidr_el1
    0x92401c00, // and x0, x0, #0xff
    0xd2800014, // movz x20, #0
    0xd5384241, // mrs x1, currentel
    0xf100303f, // cmp x1, #0xc
    0x54000541, // b.ne kernel
    // Wake the redistributor. SGIs 8 to 15 are Secure Group 0, PPIs 28 to 31 are Secure Group 1,
    // and all other SGIs and PPIs are Non-secure.
    0xd2a10141, // movz x1, #0x080a, lsl #16
    0x8b004421, // add x1, x1, x0, lsl #17
    0xb900143f, // str wzr, [x1, #0x14]
    0x91404021, // add x1, x1, #0x10, lsl #12
    0x52801fe2, // movz w2, #0xff
    0x72a1ffe2, // movk w2, #0x0fff, lsl #16
    0xb9008022, // str w2, [x1, #0x80]
    0x52be0002, // movz w2, #0xf000, lsl #16
    0xb90d0022, // str w2, [x1, #0xd00]
    // SPIs 40 and 41 are Group 0, 42 and 43 are Secure Group 1, and all others are Non-secure.
    0xd2a10003, // movz x3, #0x0800, lsl #16
    0x1281e002, // movn w2, #0xf00
    0xb9008462, // str w2, [x3, #0x84]
    0x52818002, // movz w2, #0xc00
    0xb90d0462, // str w2, [x3, #0xd04]
    0x12800002, // movn w2, #0
    0x91022064, // add x4, x3, #0x88
    0xb8004482, // groups: str w2, [x4], #4
    0xcb030085, // sub x5, x4, x3
    0xf10290bf, // cmp x5, #0xa4
    0x54ffffa1, // b.ne groups
    // The highest priority that Non-secure software can express.
    0x52901002, // movz w2, #0x8080
    0x72b01002, // movk w2, #0x8080, lsl #16
    0x91100024, // add x4, x1, #0x400
    0xb8004482, // own: str w2, [x4], #4
    0xcb010085, // sub x5, x4, x1
    0xf11080bf, // cmp x5, #0x420
    0x54ffffa1, // b.ne own
    0x91108064, // add x4, x3, #0x420
    0xb8004482, // spis: str w2, [x4], #4
    0xcb030085, // sub x5, x4, x3
    0xf11480bf, // cmp x5, #0x520
    0x54ffffa1, // b.ne spis
    0xd2801001, // movz x1, #0x80
    0xd5184601, // msr icc_pmr_el1, x1
    // Enter Non-secure EL1, with Group 0 reserved for EL3: SCR_EL3.RW, FIQ and NS.
    0xd28086a1, // movz x1, #0x435
    0xd51e1101, // msr scr_el3, x1
    0xd28078a1, // movz x1, #0x3c5
    0xd51e4001, // msr spsr_el3, x1
    0x10000201, // adr x1, ready
    0xd51e4021, // msr elr_el3, x1
    0xd69f03e0, // eret
    // With one security state, CPU 0 starts the others by PSCI_CPU_ON (HVC).
    0xd2800060, // kernel: movz x0, #0x0003
    0xf2b88000, // movk x0, #0xc400, lsl #16
    0xd2800021, // movz x1, #1
    0x100000e2, // adr x2, second
    0xd4000002, // hvc #0
    0xd2800060, // movz x0, #0x0003
    0xf2b88000, // movk x0, #0xc400, lsl #16
    0xd2800041, // movz x1, #2
    0x10000042, // adr x2, second
    0xd4000002, // hvc #0
    0xd2800034, // second: movz x20, #1
    0xd53800a0, // mrs x0, mpidr_el1
    0x92401c00, // and x0, x0, #0xff
    // x19 holds the address of the CPU's own mailbox; x20 is nonzero if software can use Group 0.
    0xd2a8e033, // ready: movz x19, #0x4701, lsl #16
    0x8b003273, // add x19, x19, x0, lsl #12
    0xd2801fe0, // movz x0, #0xff
    0xd5184600, // msr icc_pmr_el1, x0
    0xd2800040, // movz x0, #2
    0xd518cc80, // msr icc_ctlr_el1, x0
    0xd2800020, // movz x0, #1
    0xd518cce0, // msr icc_igrpen1_el1, x0
    0xb4000054, // cbz x20, opened
    0xd518ccc0, // msr icc_igrpen0_el1, x0
    0xd5033fdf, // opened: isb
    0xd503203f, // wait: yield
    0xb9400261, // ldr w1, [x19]
    0x34ffffc1, // cbz w1, wait
    0xd2800002, // movz x2, #0
    0x91004263, // add x3, x19, #16
    0xd538cc00, // next: mrs x0, icc_iar1_el1
    0x710ffc1f, // cmp w0, #1023
    0x54000101, // b.ne group1
    0xb40001d4, // cbz x20, done
    0xd538c800, // mrs x0, icc_iar0_el1
    0x710ffc1f, // cmp w0, #1023
    0x54000160, // b.eq done
    0xd538cb61, // mrs x1, icc_rpr_el1
    0xd518c820, // msr icc_eoir0_el1, x0
    0x14000003, // b count
    0xd538cb61, // group1: mrs x1, icc_rpr_el1
    0xd518cc20, // msr icc_eoir1_el1, x0
    0xd5033fdf, // count: isb
    0x28810460, // stp w0, w1, [x3], #8
    0x91000442, // add x2, x2, #1
    0xf104005f, // cmp x2, #256
    0x54fffe0b, // b.lt next
    0xb9000662, // done: str w2, [x19, #4]
    0xd5033fbf, // dmb sy
    0xb900027f, // str wzr, [x19]
    0x17ffffe7, // b wait
];
