//! The CPU interface's system registers on real hardware, accessed with `MRS` and `MSR`.
//!
//! Audited: the instructions below read and write registers of the GIC's CPU interface, and read
//! `MPIDR_EL1`, `CurrentEL` and `DAIF`. The instructions access no memory that Rust manages; the
//! barriers only order accesses. Callers of [`CpuRegisters::new`] guarantee that the exception
//! level and the CPU have these registers.
#![expect(unsafe_code, reason = "system registers are accessed by inline assembly")]
#![expect(clippy::inline_always, reason = "see `read_one_of`")]

use crate::mask_hint::MaskHint;
use crate::system_registers::{ExceptionLevel, SystemRegisters};
use core::arch::asm;
use gic_arch::Affinity;
use gic_arch::icc::{self, SysRegEncoding};

/// Tracks whether any CPU uses the priority mask hint.
static MASK_HINT: MaskHint = MaskHint::new();

/// The calling CPU's registers. The type is zero-sized, and may be created or copied freely.
///
/// Registers that are not defined in [`gic_arch::icc`] read as zero and ignore writes.
#[derive(Clone, Copy, Debug)]
pub struct CpuRegisters(());

impl CpuRegisters {
    /// Creates a handle. The handle always accesses the registers of the CPU that uses it.
    ///
    /// # Safety
    /// Every CPU on which the value is used must implement the GIC's system registers
    /// (`ID_AA64PFR0_EL1.GIC` is not 0), must execute at EL1 or above, and must be able to access
    /// these registers without an unhandled trap. Interrupts that the program enables through them
    /// must have a handler.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// Returns the calling CPU's affinity from `MPIDR_EL1`. Context: any.
    pub fn affinity(self) -> Affinity {
        own_affinity()
    }
}

/// Reads the calling CPU's affinity. The CPU must be at EL1 or above.
pub(crate) fn own_affinity() -> Affinity {
    let mpidr: u64;
    // SAFETY: reading the register has no side effects. At EL0 the instruction may trap.
    unsafe { asm!("mrs {}, MPIDR_EL1", out(reg) mpidr, options(nomem, nostack, preserves_flags)) };
    Affinity::from_mpidr(mpidr)
}

/// Dispatches a read on an encoding. Encodings are constants throughout this crate, so a read
/// compiles to a single instruction if all functions between the constant and this macro are
/// inlined. Inlining must not depend on the optimization level or on the size of the program.
macro_rules! read_one_of {
    ($wanted:expr; $($register:ident: $name:literal),* $(,)?) => {
        match $wanted {
            $(wanted if wanted == icc::$register.encoding() => {
                let value: u64;
                // SAFETY: the caller of `new` guarantees that the register is accessible. A read
                // changes at most the state of the CPU interface (`IAR`).
                unsafe {
                    asm!(
                        concat!("mrs {}, ", $name),
                        out(reg) value,
                        options(nostack, preserves_flags),
                    );
                }
                value
            })*
            _ => 0,
        }
    };
}

/// Dispatches a write on an encoding, like [`read_one_of`].
macro_rules! write_one_of {
    ($wanted:expr, $value:expr; $($register:ident: $name:literal),* $(,)?) => {
        match $wanted {
            $(wanted if wanted == icc::$register.encoding() => {
                // SAFETY: the caller of `new` guarantees that the register is accessible.
                unsafe {
                    asm!(
                        concat!("msr ", $name, ", {}"),
                        in(reg) $value,
                        options(nostack, preserves_flags),
                    );
                }
            })*
            _ => {}
        }
    };
}

impl SystemRegisters for CpuRegisters {
    #[inline(always)]
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        let value = read_one_of!(register;
            PMR: "S3_0_C4_C6_0", IAR0: "S3_0_C12_C8_0", HPPIR0: "S3_0_C12_C8_2",
            BPR0: "S3_0_C12_C8_3", AP0R0: "S3_0_C12_C8_4", AP0R1: "S3_0_C12_C8_5",
            AP0R2: "S3_0_C12_C8_6", AP0R3: "S3_0_C12_C8_7", AP1R0: "S3_0_C12_C9_0",
            AP1R1: "S3_0_C12_C9_1", AP1R2: "S3_0_C12_C9_2", AP1R3: "S3_0_C12_C9_3",
            RPR: "S3_0_C12_C11_3", IAR1: "S3_0_C12_C12_0", HPPIR1: "S3_0_C12_C12_2",
            BPR1: "S3_0_C12_C12_3", CTLR: "S3_0_C12_C12_4", SRE: "S3_0_C12_C12_5",
            IGRPEN0: "S3_0_C12_C12_6", IGRPEN1: "S3_0_C12_C12_7", SRE_EL2: "S3_4_C12_C9_5",
        );
        if register == icc::IAR0.encoding() || register == icc::IAR1.encoding() {
            // Make sure that the acknowledgment takes effect before the handler accesses its
            // device.
            barrier_system();
        }
        value
    }

    #[inline(always)]
    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        if [icc::SGI1R.encoding(), icc::ASGI1R.encoding(), icc::SGI0R.encoding()]
            .contains(&register)
        {
            // Makes the sender's earlier stores visible to the receiver. SAFETY: a barrier only
            // orders accesses.
            unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
        }
        write_one_of!(register, value;
            PMR: "S3_0_C4_C6_0", EOIR0: "S3_0_C12_C8_1", BPR0: "S3_0_C12_C8_3",
            AP0R0: "S3_0_C12_C8_4", AP0R1: "S3_0_C12_C8_5", AP0R2: "S3_0_C12_C8_6",
            AP0R3: "S3_0_C12_C8_7", AP1R0: "S3_0_C12_C9_0", AP1R1: "S3_0_C12_C9_1",
            AP1R2: "S3_0_C12_C9_2", AP1R3: "S3_0_C12_C9_3", DIR: "S3_0_C12_C11_1",
            SGI1R: "S3_0_C12_C11_5", ASGI1R: "S3_0_C12_C11_6", SGI0R: "S3_0_C12_C11_7",
            EOIR1: "S3_0_C12_C12_1", BPR1: "S3_0_C12_C12_3", CTLR: "S3_0_C12_C12_4",
            SRE: "S3_0_C12_C12_5", IGRPEN0: "S3_0_C12_C12_6", IGRPEN1: "S3_0_C12_C12_7",
            SRE_EL2: "S3_4_C12_C9_5",
        );
        if register == icc::PMR.encoding() {
            // The write is self-synchronizing and needs no ISB (IHI 0069, observability of the
            // effects of accesses to the GIC registers).
            if MASK_HINT.is_possible() {
                barrier_system();
            }
            return;
        }
        // SAFETY: a barrier only orders accesses.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
        if register == icc::CTLR.encoding() {
            MASK_HINT.note(self.read(icc::CTLR).pmhe());
        }
    }

    #[inline]
    fn exception_level(&self) -> ExceptionLevel {
        let current: u64;
        // SAFETY: `CurrentEL` can be read at EL1 and above (guaranteed by the caller of `new`);
        // reading it changes nothing.
        unsafe {
            asm!("mrs {}, CurrentEL", out(reg) current, options(nomem, nostack, preserves_flags));
        }
        if current >> 2 & 3 == 2 { ExceptionLevel::El2 } else { ExceptionLevel::El1 }
    }

    fn irqs_masked(&self) -> Option<bool> {
        const I: u64 = 1 << 7;
        let masks: u64;
        // SAFETY: `DAIF` can be read at EL1 and above (guaranteed by the caller of `new`), and
        // reading it has no side effects.
        unsafe { asm!("mrs {}, DAIF", out(reg) masks, options(nomem, nostack, preserves_flags)) };
        Some(masks & I != 0)
    }
}

/// Orders later loads after earlier ones, as seen from the outer shareable domain.
pub(crate) fn barrier_outer_loads() {
    // SAFETY: a barrier only orders accesses.
    unsafe { asm!("dmb oshld", options(nostack, preserves_flags)) };
}

/// Implements [`barrier::eight_nops`](crate::barrier::eight_nops).
pub(crate) fn eight_nops() {
    // SAFETY: a NOP has no effect.
    unsafe { asm!(".rept 8", "nop", ".endr", options(nostack, preserves_flags)) };
}

/// Waits until all earlier accesses have taken effect.
pub(crate) fn barrier_system() {
    // SAFETY: a barrier only orders accesses.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
