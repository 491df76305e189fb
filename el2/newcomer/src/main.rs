//! A program for QEMU's `virt`, written and linked without this project. It takes interrupts of its
//! virtual timer, sends itself an SGI after each of them, and prints how many it took.
//!
//! The `unsafe` code accesses `virt`'s registers, which no other code of the program uses.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

const TIMER: u64 = 27;
/// Addresses and values of registers.
const WRITES: [(usize, u32); 5] = [
    (0x080a_0014, 0),              // GICR_WAKER
    (0x080b_0080, 1 << TIMER | 1), // GICR_IGROUPR0
    (0x080b_0418, 0xa0 << 24),     // GICR_IPRIORITYR6: the SGI has priority over the timer
    (0x080b_0100, 1 << TIMER | 1), // GICR_ISENABLER0
    (0x0800_0000, 0x12),           // GICD_CTLR: affinity routing, Group 1
];

// The start, and the handler, which takes one interrupt: it restarts the timer, leaves the INTID in
// x0, and returns with interrupts masked.
global_asm!(
    ".section .text.entry, \"ax\"",
    "ldr x0, =0x40200000; mov sp, x0",
    "mov x0, #3 << 20; msr cpacr_el1, x0", // vector registers don't trap
    "mov x0, #0xf0; msr icc_pmr_el1, x0",
    "mov x0, #1; msr icc_igrpen1_el1, x0; msr cntv_ctl_el0, x0",
    "adr x0, vectors; msr vbar_el1, x0; isb; b main",
    ".balign 0x800",
    "vectors: .org vectors + 0x280; mrs x0, icc_iar1_el1",
    "mrs x1, cntfrq_el0; lsr x1, x1, #10; msr cntv_tval_el0, x1; isb",
    "msr icc_eoir1_el1, x0; mrs x1, spsr_el1; orr x1, x1, #0x80; msr spsr_el1, x1; eret",
);

/// Waits for an interrupt, takes it, and returns its INTID.
fn take() -> u64 {
    let mut intid = 1023_u64; // nothing is pending
    // SAFETY: the handler changes only x0 and x1.
    unsafe { asm!("wfi; msr daifclr, #2; isb; msr daifset, #2", inout("x0") intid, out("x1") _) };
    intid
}

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: UARTDR. `virt`'s PL011 accepts bytes at any time.
        text.bytes().for_each(|byte| unsafe { (0x0900_0000 as *mut u8).write_volatile(byte) });
        Ok(())
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    for (address, value) in WRITES {
        // SAFETY: `virt` has these registers.
        unsafe { (address as *mut u32).write_volatile(value) };
    }
    let [mut timers, mut sgis, mut others] = [0; 3];
    while sgis < 1000 {
        match take() {
            TIMER => {
                timers += 1;
                // SAFETY: sends SGI 0 to the CPU with affinity 0.0.0.0, which takes it later.
                unsafe { asm!("msr icc_sgi1r_el1, {:x}", in(reg) 1) };
            }
            0 => sgis += 1,
            1023 => {}
            _ => others += 1,
        }
    }
    let _ = writeln!(Uart, "newcomer: {timers} timer interrupts, {sgis} SGIs, {others} others");
    // SAFETY: PSCI's SYSTEM_OFF does not return.
    unsafe { asm!("hvc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
