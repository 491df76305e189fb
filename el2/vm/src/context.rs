//! A vCPU's registers. We store general-purpose registers at each exit. Registers that EL2 doesn't
//! use stay in the CPU while the vCPU is loaded: the EL1 registers, and the vector registers (code
//! built for `aarch64-unknown-none-softfloat` doesn't use vector registers).

use crate::debug::Debug;
use crate::faults::Repeats;
use crate::hypervisor_timer::NEVER;
use crate::power::Start;
use crate::syndrome::{self, ByteOrder, DeviceAccess, advanced};
use crate::tables::VTCR;
use core::arch::asm;
use image_rt::read_register;

macro_rules! write_registers {
    ($($name:literal: $value:expr),* $(,)?) => {
        $(asm!(
            concat!("msr ", $name, ", {}"),
            in(reg) $value,
            options(nostack, preserves_flags),
        );)*
    };
}

/// Registers that an exit stores and an entry loads; see `vectors.rs`. Also contains the state of
/// the vCPU that only traps change.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Context {
    /// General-purpose registers x0 to x30.
    pub(crate) registers: [u64; 31],
    /// Address at which the guest continues.
    pub(crate) pc: u64,
    /// The guest's PSTATE, in `SPSR_EL2` format.
    pub(crate) pstate: u64,
    pub(crate) debug: Debug,
    pub(crate) repeats: Repeats,
}

/// Vector and floating-point registers; see `vectors.rs`.
#[derive(Default)]
#[repr(C, align(16))]
pub(crate) struct Floats {
    /// `FPSR` and `FPCR`.
    status: [u64; 2],
    /// Vector registers q0 to q31.
    vectors: [u128; 32],
}

/// PSTATE for EL1 with its own stack pointer and all exceptions masked.
pub(crate) const EL1H_MASKED: u64 = 0x3c5;

/// PSTATE.M: EL1, unless the vCPU executes AArch32 instructions.
const EL1: u64 = 1 << 2;

impl Context {
    /// Returns the state of a starting vCPU. Both the Linux boot protocol and PSCI pass an argument
    /// in x0.
    pub(crate) fn starting(entry: u64, argument: u64) -> Self {
        let mut registers = [0; 31];
        registers[0] = argument;
        let (debug, repeats) = (Debug::reset(), Repeats::default());
        Self { registers, pc: entry, pstate: EL1H_MASKED, debug, repeats }
    }

    /// Returns a general-purpose register; register 31 is the zero register.
    pub(crate) fn register(&self, number: usize) -> u64 {
        self.registers.get(number).copied().unwrap_or(0)
    }

    /// Sets a general-purpose register; writes to register 31 are ignored.
    pub(crate) fn set_register(&mut self, number: usize, value: u64) {
        if let Some(register) = self.registers.get_mut(number) {
            *register = value;
        }
    }

    /// Returns the value that a store writes to a little-endian device.
    #[inline]
    pub(crate) fn stored(&self, access: DeviceAccess) -> u64 {
        self.byte_order().convert(self.register(access.register), access.width)
    }

    /// Sets the register of a load, where `value` is the value of a little-endian device.
    #[inline]
    pub(crate) fn load(&mut self, access: DeviceAccess, value: u64) {
        let DeviceAccess { width, register, extension, .. } = access;
        let value = self.byte_order().convert(value, width);
        self.set_register(register, extension.apply(value, width));
    }

    /// Returns `true` if the instruction that trapped has four bytes, does not change PSTATE, and
    /// accesses little-endian memory.
    #[inline]
    pub(crate) fn is_simple(&self) -> bool {
        syndrome::is_simple(self.pstate, read_register!("sctlr_el1"))
    }

    /// Continues after a [simple](Self::is_simple) instruction.
    pub(crate) fn skip_word(&mut self) {
        self.pc = self.pc.wrapping_add(4);
    }

    /// Continues after the instruction that trapped, as if it had been executed.
    pub(crate) fn skip_instruction(&mut self) {
        if syndrome::is_simple(self.pstate, 0) {
            return self.skip_word();
        }
        (self.pc, self.pstate) = advanced(self.pc, self.pstate, read_register!("esr_el2"));
    }

    /// Returns the order of the bytes in the guest's loads and stores.
    #[inline]
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::of(self.pstate, read_register!("sctlr_el1"))
    }

    /// Returns a base register; register 31 is the stack pointer.
    pub(crate) fn base(&self, number: usize) -> u64 {
        match self.registers.get(number) {
            Some(register) => *register,
            None if self.uses_sp_el1() => read_register!("sp_el1"),
            None => read_register!("sp_el0"),
        }
    }

    /// Sets a base register; register 31 is the stack pointer.
    pub(crate) fn set_base(&mut self, number: usize, value: u64) {
        let stack = self.uses_sp_el1();
        match self.registers.get_mut(number) {
            Some(register) => *register = value,
            // SAFETY: the stack pointers of EL1 and EL0 belong to the guest.
            None if stack => unsafe {
                write_registers! { "sp_el1": value }
            },
            // SAFETY: as above.
            None => unsafe {
                write_registers! { "sp_el0": value }
            },
        }
    }

    const fn is_at_el0(&self) -> bool {
        self.pstate & EL1 == 0
    }

    /// Returns `true` if the guest executes A64 instructions.
    pub(crate) const fn is_a64(&self) -> bool {
        self.pstate & 1 << 4 == 0
    }

    /// Returns `true` if PSTATE.M is EL1h.
    const fn uses_sp_el1(&self) -> bool {
        self.pstate & 0b1_1111 == 0b0_0101
    }

    /// Translates a guest virtual address to a guest physical address, as the guest's tables do for
    /// a load. Returns `None` if the guest's tables do not map it.
    pub(crate) fn translate(&self, address: u64) -> Option<u64> {
        const FAILED: u64 = 1;
        const ADDRESS: u64 = (1 << 52) - (1 << 12);
        let of_guest = read_register!("par_el1");
        // SAFETY: changes only `PAR_EL1`, which belongs to the guest and is restored below. The
        // walk cannot abort, because stage 2 restricts it to RAM (`HCR_EL2.PTW`).
        unsafe {
            if self.is_at_el0() {
                asm!("at s1e0r, {}", "isb", in(reg) address, options(nostack, preserves_flags));
            } else {
                asm!("at s1e1r, {}", "isb", in(reg) address, options(nostack, preserves_flags));
            }
        }
        let found = read_register!("par_el1");
        // SAFETY: as above.
        unsafe {
            write_registers! { "par_el1": of_guest }
        }
        (found & FAILED == 0).then_some(found & ADDRESS | address & 0xfff)
    }
}

/// Traps of the guest (`HCR_EL2`): EL1 is AArch64, stage 2 is on, and physical interrupts are
/// routed to EL2 and virtual ones to EL1. SMC, ID registers, implementation-defined registers and
/// pointer authentication trap. TLB and cache maintenance applies to all CPUs of the inner
/// shareable domain; set/way invalidation cleans.
const TRAPS: u64 =
    1 << 31 | 1 << 20 | 1 << 19 | 1 << 18 | 1 << 10 | 1 << 9 | 1 << 5 | 1 << 4 | 1 << 3 | 0b111;
/// `HCR_EL2.TWI`.
const WFI_TRAPS: u64 = 1 << 13;
/// `MDCR_EL2`: debug and performance monitor registers trap, but the guest's EL1 takes its debug
/// exceptions.
const DEBUG_TRAPS: u64 = 1 << 11 | 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5;
/// `CPTR_EL2`: the bits that are RES1 without `HCR_EL2.E2H`. Floating point does not trap.
const NO_FLOAT_TRAPS: u64 = 0x33ff;
/// `CNTHCTL_EL2`: neither the physical counter nor EL1's physical timer traps. EL2 uses a separate
/// timer (`hypervisor_timer.rs`).
const COUNTER_AND_TIMER: u64 = 0b11;
/// `SCTLR_EL1`: MMU and caches off, RES1 bits set.
const MMU_OFF: u64 = 0x30d0_0800;
/// `VMPIDR_EL2`: bit 31 is RES1.
const MPIDR_RES1: u64 = 1 << 31;

macro_rules! el1_registers {
    ($($field:ident: $name:literal),* $(,)?) => {
        /// A vCPU's registers that EL2 does not use. The registers stay in the CPU while the vCPU
        /// is loaded.
        #[derive(Default)]
        pub(crate) struct El1 {
            $($field: u64,)*
            /// `VDISR_EL2`: the guest's `DISR_EL1` while `HCR_EL2.AMO` is set.
            deferred_error: u64,
        }

        impl El1 {
            /// Reads the state of the vCPU loaded on this CPU.
            pub(crate) fn store() -> Self {
                let deferred_error =
                    if has_ras() { read_register!("S3_4_C12_C1_1") } else { 0 };
                Self { deferred_error, $($field: read_register!($name),)* }
            }

            /// # Safety
            /// The calling CPU must not have the EL1 state of another vCPU loaded.
            pub(crate) unsafe fn load(&self) {
                // SAFETY: EL2 uses these registers only for guests.
                unsafe {
                    if has_ras() {
                        write_registers! { "S3_4_C12_C1_1": self.deferred_error }
                    }
                    write_registers! { $($name: self.$field),* }
                    asm!("isb", options(nostack, preserves_flags));
                }
            }
        }
    };
}

// A timer's control register must come last, after its deadline.
el1_registers! {
    sctlr: "sctlr_el1",
    cpacr: "cpacr_el1",
    ttbr0: "ttbr0_el1",
    ttbr1: "ttbr1_el1",
    tcr: "tcr_el1",
    mair: "mair_el1",
    amair: "amair_el1",
    vbar: "vbar_el1",
    elr: "elr_el1",
    spsr: "spsr_el1",
    esr: "esr_el1",
    afsr0: "afsr0_el1",
    afsr1: "afsr1_el1",
    far: "far_el1",
    par: "par_el1",
    sp_el0: "sp_el0",
    sp_el1: "sp_el1",
    tpidr_el0: "tpidr_el0",
    tpidrro_el0: "tpidrro_el0",
    tpidr_el1: "tpidr_el1",
    contextidr: "contextidr_el1",
    csselr: "csselr_el1",
    cntkctl: "cntkctl_el1",
    timer_compare: "cntv_cval_el0",
    timer_control: "cntv_ctl_el0",
    physical_timer_compare: "cntp_cval_el0",
    physical_timer_control: "cntp_ctl_el0",
}

/// Returns `true` if the CPU has FEAT_RAS (ID_AA64PFR0_EL1.RAS), which `VDISR_EL2` requires.
fn has_ras() -> bool {
    read_register!("id_aa64pfr0_el1") >> 28 & 0xf != 0
}

impl El1 {
    /// Returns the state after reset. Registers that are not set here have unknown values after
    /// reset.
    pub(crate) fn reset() -> Self {
        Self { sctlr: MMU_OFF, ..Self::default() }
    }

    /// Returns the counter value at which the first of the timers fires. Both timers compare with
    /// the same counter, because `CNTVOFF_EL2` is zero.
    pub(crate) fn timer_deadline(&self) -> u64 {
        const ENABLE: u64 = 1;
        const IMASK: u64 = 2;
        let timers = [
            (self.timer_control, self.timer_compare),
            (self.physical_timer_control, self.physical_timer_compare),
        ];
        let fires = |(control, _): &(u64, u64)| control & (ENABLE | IMASK) == ENABLE;
        let deadlines = timers.into_iter().filter(fires);
        deadlines.map(|(_, compare)| compare).min().unwrap_or(NEVER)
    }
}

/// Registers of a vCPU that is on.
pub(crate) struct Registers {
    pub(crate) context: Context,
    pub(crate) floats: Floats,
    pub(crate) el1: El1,
}

impl Registers {
    /// Returns the registers of a vCPU that starts.
    pub(crate) fn starting(Start { entry, argument }: Start) -> Self {
        let context = Context::starting(entry, argument);
        Self { context, floats: Floats::default(), el1: El1::reset() }
    }
}

/// Effect of a vCPU's WFI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wfi {
    /// WFI exits, because another vCPU may need the CPU.
    Traps,
    /// WFI makes the CPU itself wait, for physical interrupts as well.
    Idles,
}

/// Sets the traps for all guests on the calling CPU.
///
/// # Safety
/// No vCPU may be loaded.
pub(crate) unsafe fn prepare_cpu(wfi: Wfi) {
    let wfi = if wfi == Wfi::Traps { WFI_TRAPS } else { 0 };
    let counters = read_register!("pmcr_el0") >> 11 & 0x1f;
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
            "vpidr_el2": read_register!("midr_el1"),
            "cntv_ctl_el0": 0_u64,
            "cntp_ctl_el0": 0_u64,
        }
        asm!("isb", "tlbi alle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags),);
    }
}

/// Returns `true` if the guests' WFI exits on the calling CPU.
pub(crate) fn wfi_traps() -> bool {
    read_register!("hcr_el2") & WFI_TRAPS != 0
}

/// Sets a vCPU's stage 2 and MPIDR on the calling CPU.
///
/// # Safety
/// `vttbr` must describe a stage 2 that maps only memory that the guest may access.
pub(crate) unsafe fn load_stage2(vttbr: u64, mpidr: u64) {
    // SAFETY: EL2 does not use these registers; the caller guarantees that stage 2 is valid.
    unsafe {
        write_registers! { "vttbr_el2": vttbr, "vmpidr_el2": mpidr | MPIDR_RES1 }
        asm!("isb", options(nostack, preserves_flags));
    }
}

/// Invalidates this CPU's TLB entries from the guest's other vCPUs. A guest may assume that its
/// CPUs don't share TLBs.
pub(crate) fn forget_translations() {
    // SAFETY: invalidated translations are walked again.
    unsafe {
        asm!("tlbi vmalle1", "ic iallu", "dsb nsh", "isb", options(nostack, preserves_flags),);
    }
}

/// Invalidates the TLB entries of the loaded vCPU's guest on all CPUs, after a change of its stage
/// 2.
pub(crate) fn forget_stage2() {
    // SAFETY: invalidated translations are walked again.
    unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
}
