//! Preparation of a CPU for guests: traps, vectors and stage 2.

use crate::id_registers::WFI_TRAPS;
use crate::sysreg::{read_register, write_registers};
use crate::tables::{VTCR, Vttbr};
use crate::virtual_interface::Hardware;
use crate::{debug, vectors};
use core::arch::asm;

/// Traps of the guest (`HCR_EL2`): EL1 is AArch64, stage 2 is on, and physical interrupts are
/// routed to EL2 and virtual ones to EL1. SMC, ID registers, implementation-defined registers and
/// pointer authentication trap. TLB and cache maintenance applies to all CPUs of the inner
/// shareable domain; set/way invalidation cleans.
const TRAPS: u64 =
    1 << 31 | 1 << 20 | 1 << 19 | 1 << 18 | 1 << 10 | 1 << 9 | 1 << 5 | 1 << 4 | 1 << 3 | 0b111;
/// `MDCR_EL2`: debug and performance monitor registers trap, but the guest's EL1 takes its debug
/// exceptions.
const DEBUG_TRAPS: u64 = 1 << 11 | 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5;
/// `CPTR_EL2`: the bits that are RES1 without `HCR_EL2.E2H`. Floating point does not trap.
const NO_FLOAT_TRAPS: u64 = 0x33ff;
/// `CNTHCTL_EL2`: neither the physical counter nor EL1's physical timer traps. EL2 uses a separate
/// timer (`CNTHP_CTL_EL2`).
const COUNTER_AND_TIMER: u64 = 0b11;
/// `VMPIDR_EL2`: bit 31 is RES1.
const MPIDR_RES1: u64 = 1 << 31;

/// Effect of a vCPU's WFI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wfi {
    /// WFI exits, because another vCPU may need the CPU.
    Traps,
    /// WFI makes the CPU itself wait, for physical interrupts as well.
    Idles,
}

/// Prepares the calling CPU to run guests at EL1: its vectors, traps and debug registers, and empty
/// list registers.
///
/// # Safety
/// No vCPU may be loaded. Interrupts must be masked.
///
/// # Panics
/// Panics if the compiler may use vector registers: they belong to the guests.
pub unsafe fn prepare(wfi: Wfi) {
    vectors::install();
    let wfi = if wfi == Wfi::Traps { WFI_TRAPS } else { 0 };
    let (counters, midr) = (read_register!("pmcr_el0") >> 11 & 0x1f, read_register!("midr_el1"));
    // SAFETY: EL2 uses these registers only for guests.
    unsafe {
        write_registers! {
            "vtcr_el2": VTCR,
            "hcr_el2": TRAPS | wfi,
            "cptr_el2": NO_FLOAT_TRAPS,
            "hstr_el2": 0_u64,
            "mdcr_el2": counters | DEBUG_TRAPS,
            "cnthctl_el2": COUNTER_AND_TIMER,
            "cntvoff_el2": 0_u64,
            "vpidr_el2": midr,
            "cntv_ctl_el0": 0_u64,
            "cntp_ctl_el0": 0_u64,
        }
        asm!("isb", "tlbi alle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags),);
    }
    debug::prepare_cpu();
    Hardware::here().clear();
}

/// Sets a vCPU's stage 2 and MPIDR on the calling CPU.
///
/// # Safety
/// The stage 2 must map only memory that the guest may access.
pub unsafe fn load_stage2(Vttbr(vttbr): Vttbr, mpidr: u64) {
    // SAFETY: EL2 does not use these registers; the caller guarantees that stage 2 is valid.
    unsafe {
        write_registers! { "vttbr_el2": vttbr, "vmpidr_el2": mpidr | MPIDR_RES1 }
        asm!("isb", options(nostack, preserves_flags));
    }
}

/// Invalidates this CPU's TLB entries from the guest's other vCPUs. A guest may assume that its
/// CPUs don't share TLBs.
pub fn forget_translations() {
    // SAFETY: invalidated translations are walked again.
    unsafe {
        asm!("tlbi vmalle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags),);
    }
}

/// Invalidates the TLB entries of the loaded vCPU's guest on all CPUs, after a change of its stage
/// 2.
pub fn forget_stage2() {
    // SAFETY: invalidated translations are walked again.
    unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
}
