//! A machine of KVM's that comes into being.

use super::{INTERRUPTED, create, errno};
use crate::Failure;
use crate::creation::{ADDRESS_BITS, Creation, Outcome, Step};
use kvm_bindings::{
    kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, Kvm, VcpuFd, VmFd};
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, Errno, frame};

/// A machine that has a GICv3 and nothing else yet.
#[derive(Debug)]
pub struct BareMachine {
    pub(super) cpus: Vec<VcpuFd>,
    pub(super) gic: DeviceFd,
    pub(super) its: Vec<DeviceFd>,
    init: kvm_vcpu_init,
    pub(super) vm: VmFd,
}

impl BareMachine {
    /// A machine without vCPUs.
    pub fn new() -> Result<Self, Failure> {
        let vm = Kvm::new()?.create_vm_with_ipa_size(ADDRESS_BITS.into())?;
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init)?;
        let gic = create(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3)?;
        Ok(Self { cpus: Vec::new(), gic, its: Vec::new(), init, vm })
    }

    fn device(&self, device: KvmDevice) -> Result<&DeviceFd, Errno> {
        match device {
            KvmDevice::Gic => Ok(&self.gic),
            KvmDevice::Its(index) => self.its.get(index).ok_or(Errno::NoDevice),
        }
    }

    fn create_cpu(&mut self, number: u16) -> Result<(), kvm_ioctls::Error> {
        let cpu = self.vm.create_vcpu(number.into())?;
        cpu.vcpu_init(&self.init)?;
        self.cpus.push(cpu);
        Ok(())
    }

    /// As far as the guest's first instruction.
    fn run(&mut self) -> Option<Outcome> {
        let cpu = self.cpus.first_mut()?;
        cpu.set_kvm_immediate_exit(1);
        let outcome = cpu.run().map(|_| 0);
        cpu.set_kvm_immediate_exit(0);
        Some(
            outcome.or_else(
                |error| if error.errno() == INTERRUPTED { Ok(0) } else { Err(errno(error)) },
            ),
        )
    }

    /// Reads an attribute, whose memory holds a value before.
    fn get(&self, device: KvmDevice, attribute: Attribute, before: u64) -> Outcome {
        let mut value = before;
        let mut request = request(attribute, &raw mut value);
        // SAFETY: the kernel writes at most eight bytes of an attribute, and `value` has them.
        unsafe { self.device(device)?.get_device_attr(&mut request) }.map_err(errno)?;
        Ok(value)
    }
}

impl Creation for BareMachine {
    fn take(&mut self, step: Step) -> Option<Outcome> {
        Some(match step {
            Step::Cpu(number) => self.create_cpu(number).map(|()| 0).map_err(errno),
            Step::Its => create(&self.vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)
                .map(|its| self.its.push(its))
                .map(|()| 0)
                .map_err(|_| Errno::NoAccess),
            Step::Set(device, attribute, mut value) => self.device(device).and_then(|device| {
                device
                    .set_device_attr(&request(attribute, &raw mut value))
                    .map(|()| 0)
                    .map_err(errno)
            }),
            Step::Get(device, attribute) => self.get(device, attribute, 0),
            Step::Has(device, attribute) => self.device(device).and_then(|device| {
                device
                    .has_device_attr(&request(attribute, std::ptr::null_mut()))
                    .map(|()| 0)
                    .map_err(errno)
            }),
            Step::Region(index) => self.get(
                KvmDevice::Gic,
                Attribute::Address(frame::REDISTRIBUTOR_REGION),
                index.into(),
            ),
            Step::Run => return self.run(),
        })
    }
}

fn request(attribute: Attribute, value: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        group: attribute.group(),
        attr: attribute.number(),
        addr: value as u64,
        flags: 0,
    }
}
