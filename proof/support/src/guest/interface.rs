//! A guest kernel's accesses to its GIC CPU interface.

use gic_arch::icc::SysRegEncoding;
use vgic::{Paused, Undefined, Vcpu};

/// A vCPU with a CPU interface of any kind.
pub trait Interface {
    /// Reads a system register.
    ///
    /// # Errors
    /// Fails if the register does not exist.
    fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined>;

    /// Writes a system register.
    ///
    /// # Errors
    /// Fails if the register does not exist.
    fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined>;

    /// Exits from the guest and pauses the vCPU.
    fn pause(&mut self) -> Paused<'_>;
}

impl Interface for Vcpu {
    fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        self.read_sysreg(register)
    }

    fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        self.write_sysreg(register, value)
    }

    fn pause(&mut self) -> Paused<'_> {
        self.pause()
    }
}
