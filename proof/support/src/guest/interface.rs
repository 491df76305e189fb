//! The vCPUs of a scripted guest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::Kicks;
use gic_arch::icc::SysRegEncoding;
use msi_types::{DeviceId, MsiMessage};
use std::sync::Arc;
use vgic::{Paused, Sleep, Vcpu};

/// A vCPU with a CPU interface of any kind. Accesses to system registers that don't exist panic.
pub trait Interface {
    /// Creates the vCPU. `kicks` counts its kicks.
    fn of(vcpu: Vcpu, kicks: &Arc<Kicks>) -> Self;

    /// Reads a system register.
    fn read(&mut self, register: SysRegEncoding) -> u64;

    /// Writes a system register.
    fn write(&mut self, register: SysRegEncoding, value: u64);

    /// Pauses the vCPU.
    fn pause(&mut self) -> Paused<'_>;

    /// Prepares to sleep.
    fn prepare_to_sleep(&mut self) -> Sleep;

    /// Returns from sleep.
    fn returned(&mut self);

    /// Resets the vCPU.
    fn reset(&mut self);

    /// Returns `true` if an interrupt is signaled to the vCPU.
    fn is_signaled(&mut self) -> bool;

    /// Enters the guest, or leaves and enters it again if the vCPU was kicked.
    fn attend(&mut self) {}

    /// Moves the LPI of a device's message into a list register. Returns `false`, without any
    /// effect, if this isn't possible without an exit.
    fn list_message(&mut self, _from: DeviceId, _message: MsiMessage) -> bool {
        false
    }
}

impl Interface for Vcpu {
    fn of(vcpu: Vcpu, _: &Arc<Kicks>) -> Self {
        vcpu
    }

    fn read(&mut self, register: SysRegEncoding) -> u64 {
        self.read_sysreg(register).unwrap()
    }

    fn write(&mut self, register: SysRegEncoding, value: u64) {
        self.write_sysreg(register, value).unwrap();
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

    fn is_signaled(&mut self) -> bool {
        self.inputs().any()
    }
}
