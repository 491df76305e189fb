//! The calling CPU's system registers, as used by the CPU interface driver.

#![expect(clippy::inline_always, reason = "an encoding must reach `CpuRegisters` as a constant")]

use gic_arch::icc::{SysReg, SysRegEncoding};
use gic_arch::{Readable, RegisterValue, Writable};

/// The exception level at which a kernel or hypervisor executes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExceptionLevel {
    /// EL1: a kernel.
    El1,
    /// EL2: a hypervisor, or a kernel that runs at EL2. Software at EL2 must set up `ICC_SRE_EL2`
    /// itself.
    El2,
}

/// System registers of the calling CPU's interface. On hardware, the implementation is a zero-sized
/// type around `MRS` and `MSR`; in a simulated machine, it is a handle to one CPU.
pub trait SystemRegisters {
    /// Reads a register.
    fn read_raw(&self, register: SysRegEncoding) -> u64;
    /// Writes a register, with the barriers needed for it to take effect: an `ISB`, except after
    /// writes to the mask (`ICC_PMR_EL1`), which are self-synchronizing and need a `DSB` if
    /// `ICC_CTLR_EL1.PMHE` is 1.
    fn write_raw(&self, register: SysRegEncoding, value: u64);
    /// Returns the caller's exception level. The provided method returns EL1.
    fn exception_level(&self) -> ExceptionLevel {
        ExceptionLevel::El1
    }

    /// Returns whether the calling CPU masks IRQ exceptions (`PSTATE.I`), or `None` if the
    /// implementation cannot read the mask.
    fn irqs_masked(&self) -> Option<bool> {
        None
    }

    /// Reads a typed register.
    #[inline(always)]
    fn read<V: RegisterValue<Raw = u64>, A: Readable>(&self, register: SysReg<V, A>) -> V {
        V::from(self.read_raw(register.encoding()))
    }

    /// Writes a typed register.
    #[inline(always)]
    fn write<V: RegisterValue<Raw = u64>, A: Writable>(&self, register: SysReg<V, A>, value: V) {
        self.write_raw(register.encoding(), value.into());
    }
}

impl<S: SystemRegisters + ?Sized> SystemRegisters for &S {
    #[inline(always)]
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        (**self).read_raw(register)
    }

    #[inline(always)]
    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        (**self).write_raw(register, value);
    }

    fn exception_level(&self) -> ExceptionLevel {
        (**self).exception_level()
    }

    fn irqs_masked(&self) -> Option<bool> {
        (**self).irqs_masked()
    }
}
