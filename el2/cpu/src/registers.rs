//! A vCPU's registers. Registers that EL2 doesn't use stay in the CPU while the vCPU is loaded: the
//! EL1 registers, and the vector registers (code built for `aarch64-unknown-none-softfloat` doesn't
//! use vector registers).

use crate::context::Context;
use crate::sysreg::{read_register, write_registers};
use core::arch::asm;

/// Deadline of a disabled timer, as a counter value.
pub const NEVER: u64 = u64::MAX;

/// Vector and floating-point registers; see `vectors.rs`.
#[derive(Default)]
#[repr(C, align(16))]
pub(crate) struct Floats {
    /// `FPSR` and `FPCR`.
    status: [u64; 2],
    /// Vector registers q0 to q31.
    vectors: [u128; 32],
}

/// `SCTLR_EL1`: MMU and caches off, RES1 bits set.
const MMU_OFF: u64 = 0x30d0_0800;
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
            fn store() -> Self {
                let deferred_error =
                    if has_ras() { read_register!("S3_4_C12_C1_1") } else { 0 };
                Self { deferred_error, $($field: read_register!($name),)* }
            }

            /// # Safety
            /// The calling CPU must not have the EL1 state of another vCPU loaded.
            unsafe fn load(&self) {
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
    fn reset() -> Self {
        Self { sctlr: MMU_OFF, ..Self::default() }
    }

    /// Returns the counter value at which the first of the timers fires. Both timers compare with
    /// the same counter, because `CNTVOFF_EL2` is zero.
    fn timer_deadline(&self) -> u64 {
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

/// Start state of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Guest physical address of the first instruction.
    pub entry: u64,
    /// Value of x0.
    pub argument: u64,
}

/// Registers of a vCPU that is on.
pub struct Registers {
    /// Registers that are stored at each exit.
    pub context: Context,
    floats: Floats,
    el1: El1,
}

impl Registers {
    /// Returns the registers of a vCPU that starts.
    pub fn starting(Start { entry, argument }: Start) -> Self {
        let context = Context::starting(entry, argument);
        Self { context, floats: Floats::default(), el1: El1::reset() }
    }

    /// Loads the registers that stay in the CPU while the vCPU is loaded, the timers last.
    ///
    /// # Safety
    /// The calling CPU must not have the EL1 state of another vCPU loaded.
    pub unsafe fn load(&self) {
        self.floats.load();
        self.context.debug.load();
        // SAFETY: guaranteed by the caller.
        unsafe { self.el1.load() };
    }

    /// Stores these registers. The vCPU must be loaded on the calling CPU. Its timers are stopped
    /// by the caller.
    pub fn store(&mut self) {
        self.floats.store();
        self.el1 = El1::store();
    }

    /// Returns the counter value at which the first of the stored timers fires.
    pub fn timer_deadline(&self) -> u64 {
        self.el1.timer_deadline()
    }
}
