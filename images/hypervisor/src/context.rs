//! A vCPU's registers. General and vector registers are stored at each exit. Those of EL1 stay in
//! the CPU, which is the vCPU's alone; EL2 does not use them.

use core::arch::asm;
use image_rt::read_register;

/// What an exit stores and an entry loads: see `vectors.rs`.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Context {
    /// x0 to x30.
    pub(crate) registers: [u64; 31],
    /// `TPIDR_EL1`, which the image needs for itself.
    pub(crate) thread: u64,
    /// Where the guest goes on.
    pub(crate) pc: u64,
    /// Its PSTATE, as in `SPSR_EL2`.
    pub(crate) pstate: u64,
    /// `FPSR`, `FPCR`.
    pub(crate) float_status: [u64; 2],
    /// q0 to q31.
    pub(crate) vectors: [u128; 32],
}

/// EL1 with its own stack pointer, everything masked.
pub(crate) const EL1H_MASKED: u64 = 0x3c5;

impl Context {
    /// A vCPU as it starts: by the Linux boot protocol and PSCI alike, x0 has an argument.
    pub(crate) fn starting(entry: u64, argument: u64) -> Self {
        let mut registers = [0; 31];
        registers[0] = argument;
        Self {
            registers,
            thread: 0,
            pc: entry,
            pstate: EL1H_MASKED,
            float_status: [0; 2],
            vectors: [0; 32],
        }
    }

    /// A general register; number 31 is the zero register.
    pub(crate) fn register(&self, number: usize) -> u64 {
        self.registers.get(number).copied().unwrap_or(0)
    }

    /// Sets a general register; number 31 ignores it.
    pub(crate) fn set_register(&mut self, number: usize, value: u64) {
        if let Some(register) = self.registers.get_mut(number) {
            *register = value;
        }
    }

    /// Goes on behind the instruction that trapped. All of AArch64's have four bytes; what AArch32
    /// code does at EL0 is not emulated.
    pub(crate) fn skip_instruction(&mut self) {
        self.pc = self.pc.wrapping_add(4);
    }
}

/// Traps of the guest (`HCR_EL2`): AArch64 at EL1, stage 2, physical interrupts to EL2 and virtual
/// ones to EL1; WFI, SMC and implementation-defined registers trap; TLB and cache maintenance
/// reaches all CPUs of the inner shareable domain, set/way invalidation cleans; pointer
/// authentication does not trap.
const TRAPS: u64 = 1 << 41
    | 1 << 40
    | 1 << 31
    | 1 << 20
    | 1 << 19
    | 1 << 13
    | 1 << 10
    | 1 << 9
    | 1 << 5
    | 1 << 4
    | 1 << 3
    | 1 << 2
    | 1 << 1
    | 1;
/// `CPTR_EL2`: the bits that are RES1 without `HCR_EL2.E2H`; floating point does not trap.
const NO_FLOAT_TRAPS: u64 = 0x33ff;
/// `CNTHCTL_EL2`: the physical counter can be read, the physical timer traps.
const COUNTER_ALONE: u64 = 1;
/// `SCTLR_EL1`: MMU and caches off, RES1 bits set.
const MMU_OFF: u64 = 0x30d0_0800;
/// `VMPIDR_EL2`: bit 31 is RES1.
const MPIDR_RES1: u64 = 1 << 31;

macro_rules! write_registers {
    ($($name:literal: $value:expr),* $(,)?) => {
        $(asm!(
            concat!("msr ", $name, ", {}"),
            in(reg) $value,
            options(nostack, preserves_flags),
        );)*
    };
}

/// Gives this CPU's EL1 to a vCPU that starts: traps, stage 2 and registers as after reset.
///
/// # Safety
/// `vttbr` and `vtcr` describe a stage 2 that maps nothing but what the guest may reach, and stays
/// as it is.
pub(crate) unsafe fn reset_el1(mpidr: u64, vttbr: u64, vtcr: u64) {
    let counters = read_register!("pmcr_el0") >> 11 & 0x1f;
    // SAFETY: EL2 uses none of these but for the guest; the caller's promise for stage 2.
    unsafe {
        write_registers! {
            "vtcr_el2": vtcr,
            "vttbr_el2": vttbr,
            "hcr_el2": TRAPS,
            "cptr_el2": NO_FLOAT_TRAPS,
            "hstr_el2": 0_u64,
            "mdcr_el2": counters,
            "cnthctl_el2": COUNTER_ALONE,
            "cntvoff_el2": 0_u64,
            "vpidr_el2": read_register!("midr_el1"),
            "vmpidr_el2": mpidr | MPIDR_RES1,
            "sctlr_el1": MMU_OFF,
            "cpacr_el1": 0_u64,
            "ttbr0_el1": 0_u64,
            "ttbr1_el1": 0_u64,
            "tcr_el1": 0_u64,
            "mair_el1": 0_u64,
            "vbar_el1": 0_u64,
            "elr_el1": 0_u64,
            "spsr_el1": 0_u64,
            "esr_el1": 0_u64,
            "far_el1": 0_u64,
            "sp_el0": 0_u64,
            "sp_el1": 0_u64,
            "tpidr_el0": 0_u64,
            "tpidrro_el0": 0_u64,
            "contextidr_el1": 0_u64,
            "mdscr_el1": 0_u64,
            "cntkctl_el1": 0_u64,
            "cntv_ctl_el0": 0_u64,
        }
        asm!(
            "isb",
            "tlbi vmalls12e1",
            "ic iallu",
            "dsb nsh",
            "isb",
            options(nostack, preserves_flags),
        );
    }
}
