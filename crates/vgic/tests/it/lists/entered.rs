//! A vCPU in guest mode, as a hypervisor keeps it whose exit handlers do not return to the function
//! that entered the guest.

use doorbell_test_support::guest::{Hardware, vtr};
use gic_arch::icc::SysRegEncoding;
use gic_arch::ich::Vmcr;
use msi_types::{DeviceId, MsiMessage};
use vgic::{ListRegisterVcpu, Undefined, VirtualInterface};

pub(crate) struct Entered(ListRegisterVcpu);

/// Enters the guest on a CPU with four list registers.
pub(crate) fn enter(mut vcpu: ListRegisterVcpu) -> (Entered, Hardware) {
    let hardware = Hardware::new(*vcpu.enter().interface(), vtr(4, 5));
    (Entered(vcpu), hardware)
}

impl Entered {
    /// Exits the guest and enters it again.
    pub(crate) fn again(self, hardware: &Hardware) -> (Self, Hardware) {
        enter(self.exit(&hardware.registers))
    }

    pub(crate) fn interface(&mut self) -> VirtualInterface {
        *self.0.in_guest().unwrap().interface()
    }

    pub(crate) fn list(
        &mut self,
        from: DeviceId,
        message: MsiMessage,
        vmcr: Vmcr,
        empty: u32,
    ) -> Option<usize> {
        self.0.in_guest().unwrap().list_message(from, message, vmcr, empty)
    }

    pub(crate) fn write_sgi(
        &mut self,
        register: SysRegEncoding,
        value: u64,
    ) -> Result<(), Undefined> {
        self.0.in_guest().unwrap().write_sgi(register, value)
    }

    pub(crate) fn exit(mut self, left: &VirtualInterface) -> ListRegisterVcpu {
        self.0.in_guest().unwrap().exit(left);
        assert!(self.0.in_guest().is_none());
        self.0
    }
}
