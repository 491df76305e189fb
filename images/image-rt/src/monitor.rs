//! A stand-in for EL3 firmware on QEMU's `virt` with `secure=on`. It keeps two security states
//! (`GICD_CTLR.DS` = 0), assigns all interrupts to the Non-secure state, starts the image at a
//! lower exception level, and implements four PSCI calls by SMC.
//!
//! QEMU provides such firmware only for Linux; it starts an ELF file at EL3 on all CPUs
//! simultaneously. This code hardcodes `virt`'s addresses and runs without MMU, caches or stack.
//! Don't use it on hardware.
//!
//! Group 0 interrupts are routed to EL3 (`SCR_EL3.FIQ` = 1), as with Trusted Firmware, so that the
//! Non-secure state sees shifted priorities.

/// Value of `x1` at the image's start if this firmware is present: "EL3" in ASCII.
pub const MARK: u64 = 0x454c33;

// x19 holds the number of this CPU. Each mailbox has 32 bytes: state (0 off, 1 on, 2 to be
// started), entry, context.
core::arch::global_asm!(
    ".section .init.reset, \"ax\"",
    ".global reset",
    "reset:",
    "    mrs x9, CurrentEL",
    "    cmp x9, #(3 << 2)",
    "    b.eq 0f",
    "    b entry",
    "0:  adr x9, monitor_vectors",
    "    msr vbar_el3, x9",
    "    mrs x19, mpidr_el1",
    "    and x19, x19, #0xff",
    "    mov x9, #0xf",
    "    msr S3_6_C12_C12_5, x9", // ICC_SRE_EL3: system registers here and below
    "    isb",
    "    cbnz x19, 3f",
    // The distributor: enable affinity routing in both states, and put all SPIs in Non-secure Group
    // 1.
    "    movz x10, #0x0800, lsl #16",
    "    mov w9, #0x30",
    "    str w9, [x10]",
    "1:  ldr w9, [x10]",
    "    tbnz w9, #31, 1b",
    "    add x11, x10, #0x84",
    "    mov x12, #31",
    "    mov w9, #-1",
    "2:  str w9, [x11], #4",
    "    subs x12, x12, #1",
    "    b.ne 2b",
    // This CPU's redistributor: wake it up, and put SGIs and PPIs in Non-secure Group 1.
    "3:  movz x10, #0x080a, lsl #16",
    "    add x10, x10, x19, lsl #17",
    "    str wzr, [x10, #0x14]",
    "4:  ldr w9, [x10, #0x14]",
    "    tbnz w9, #2, 4b",
    "    add x10, x10, #0x10, lsl #12",
    "    mov w9, #-1",
    "    str w9, [x10, #0x80]",
    // Non-secure writes to the priority mask are ignored until its value is in the Non-secure half.
    "    mov x9, #0xff",
    "    msr S3_0_C4_C6_0, x9", // ICC_PMR_EL1
    "    mov x9, #0x535",       // SCR_EL3: NS, FIQ to EL3, RES1, HVC, AArch64 below
    "    msr scr_el3, x9",
    "    msr cptr_el3, xzr",
    "    movz x9, #0x0800",
    "    movk x9, #0x30d0, lsl #16",
    "    msr sctlr_el1, x9",
    "    mov x9, #0x3c5", // EL1h, everything masked
    "    mrs x10, id_aa64pfr0_el1",
    "    tst x10, #0xf00",
    "    b.eq 5f",
    "    movz x10, #0x0830",
    "    movk x10, #0x30c5, lsl #16",
    "    msr sctlr_el2, x10",
    "    mov x10, #0xf",
    "    msr S3_4_C12_C9_5, x10", // ICC_SRE_EL2
    "    mov x9, #0x3c9",         // EL2h
    "5:  msr spsr_el3, x9",
    "    isb",
    "    cbnz x19, monitor_pen",
    "    adr x9, entry",
    "    msr elr_el3, x9",
    "    movz x0, #0x4000, lsl #16", // QEMU puts the devicetree at the beginning of RAM
    "    movz x1, #0x4c33",
    "    movk x1, #0x45, lsl #16",
    "    mov x2, xzr",
    "    mov x3, xzr",
    "    eret",
    "monitor_pen:",
    "    adr x20, monitor_mailboxes",
    "    add x20, x20, x19, lsl #5",
    "    str xzr, [x20]",
    "    dsb sy",
    "6:  wfe",
    "    ldr x9, [x20]",
    "    cmp x9, #2",
    "    b.ne 6b",
    "    ldr x9, [x20, #8]",
    "    msr elr_el3, x9",
    "    ldr x0, [x20, #16]",
    "    mov x9, #1",
    "    str x9, [x20]",
    "    tlbi alle3",
    "    dsb sy",
    "    isb",
    "    eret",
    // A call from a lower exception level may only change x0 to x3.
    "monitor_call:",
    "    msr tpidr_el3, x4",
    "    movz x4, #0x0003",
    "    movk x4, #0xc400, lsl #16", // CPU_ON
    "    cmp w0, w4",
    "    b.eq 10f",
    "    movk x4, #0x0004", // AFFINITY_INFO
    "    cmp w0, w4",
    "    b.eq 12f",
    "    movz x4, #0x0002",
    "    movk x4, #0x8400, lsl #16", // CPU_OFF
    "    cmp w0, w4",
    "    b.eq 14f",
    "    movk x4, #0x0008", // SYSTEM_OFF
    "    cmp w0, w4",
    "    b.eq 15f",
    "    mov x0, #-1",
    "    b 20f",
    "10: and x1, x1, #0xff",
    "    adr x4, monitor_mailboxes",
    "    add x1, x4, x1, lsl #5",
    "    mov x0, #-4", // already on
    "    ldr x4, [x1]",
    "    cbnz x4, 20f",
    "    stp x2, x3, [x1, #8]",
    "    dsb sy",
    "    mov x4, #2",
    "    str x4, [x1]",
    "    dsb sy",
    "    sev",
    "    mov x0, #0",
    "    b 20f",
    "12: and x1, x1, #0xff",
    "    adr x4, monitor_mailboxes",
    "    add x1, x4, x1, lsl #5",
    "    ldr x4, [x1]",
    "    mov x0, #2", // about to be on
    "    cmp x4, #1",
    "    b.hi 20f",
    "    cset x0, ne", // 0 on, 1 off
    "    b 20f",
    "14: mrs x19, mpidr_el1",
    "    and x19, x19, #0xff",
    "    mrs x9, spsr_el3",
    "    and x9, x9, #0xf",
    "    mov x10, #0x3c0",
    "    orr x9, x9, x10",
    "    msr spsr_el3, x9",
    "    movz x9, #0x0800",
    "    movk x9, #0x30d0, lsl #16",
    "    msr sctlr_el1, x9", // MMU and caches off at the next start
    "    isb",
    "    b monitor_pen",
    "15: mov x0, #0x18", // semihosting: exit
    "    adr x1, monitor_exit",
    "    hlt #0xf000",
    "    b .",
    "20: mrs x4, tpidr_el3",
    "    eret",
    ".balign 8",
    "monitor_exit: .quad 0x20026, 0",
    "monitor_mailboxes: .quad 1, 0, 0, 0",
    "    .zero 15 * 32",
    ".balign 0x800",
    "monitor_vectors:",
    "    .rept 8",
    "    b .",
    "    .balign 0x80",
    "    .endr",
    "    b monitor_call", // synchronous, from AArch64 below
    "    .balign 0x80",
    "    .rept 7",
    "    b .",
    "    .balign 0x80",
    "    .endr",
);
