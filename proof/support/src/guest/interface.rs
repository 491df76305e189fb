//! The vCPUs of a scripted guest.

use super::Kicks;
use gic_arch::icc::SysRegEncoding;
use msi_types::{DeviceId, MsiMessage};
use std::sync::Arc;
use vgic::{Inputs, Paused, Sleep, Undefined, Vcpu};

/// A vCPU with a CPU interface of any kind.
pub trait Interface {
    /// Creates the vCPU. `kicks` counts its kicks.
    fn of(vcpu: Vcpu, kicks: &Arc<Kicks>) -> Self;

    /// Reads a system register.
    ///
    /// # Errors
    /// Fails if the register does not exist.
    fn read(&mut self, register: SysRegEncoding) -> Result<u64, Undefined>;

    /// Writes a system register.
    ///
    /// # Errors
    /// Fails if the register does not exist.
    fn write(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined>;

    /// Pauses the vCPU.
    fn pause(&mut self) -> Paused<'_>;

    /// Prepares to sleep.
    fn prepare_to_sleep(&mut self) -> Sleep;

    /// Returns from sleep.
    fn returned(&mut self);

    /// Resets the vCPU.
    fn reset(&mut self);

    /// Returns the interrupt inputs of the vCPU.
    fn inputs(&mut self) -> Inputs;

    /// Enters the guest, or leaves and enters it again if the vCPU was kicked.
    fn attend(&mut self) {}

    /// Exits from the guest.
    fn leave_guest(&mut self) {}

    /// Moves the LPI of a device's message into a list register. Returns `false`, without any
    /// effect, if this isn't possible without an exit.
    fn list_message(&mut self, _from: DeviceId, _message: MsiMessage) -> bool {
        false
    }

    /// Returns the physical interrupts that the hardware has deactivated since the last call.
    fn take_deactivated(&mut self) -> Vec<u32> {
        Vec::new()
    }
}

impl Interface for Vcpu {
    fn of(vcpu: Vcpu, _: &Arc<Kicks>) -> Self {
        vcpu
    }

    fn read(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        self.read_sysreg(register)
    }

    fn write(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        self.write_sysreg(register, value)
    }

    fn pause(&mut self) -> Paused<'_> {
        self.pause()
    }

    fn prepare_to_sleep(&mut self) -> Sleep {
        self.prepare_to_sleep()
    }

    fn returned(&mut self) {
        self.returned();
    }

    fn reset(&mut self) {
        self.reset();
    }

    fn inputs(&mut self) -> Inputs {
        self.inputs()
    }
}
