//! Creates a KVM machine with its vCPUs, GICv3 and ITSes.

use crate::Failure;
use crate::layout::{CPUS, DISTRIBUTOR, INTERRUPTS, ITS, REDISTRIBUTORS};
use crate::machine::iidr;
use gic_arch::gicd;
use kvm_bindings::{
    kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, Kvm, VcpuFd, VmFd};
use vgic_kvm::abi::{Attribute, Errno, control, frame};

/// Number of guest physical address bits.
const ADDRESS_BITS: u32 = 40;

/// A machine that has no memory yet.
#[derive(Debug)]
pub(super) struct BareMachine {
    pub(super) cpus: Vec<VcpuFd>,
    pub(super) gic: DeviceFd,
    pub(super) its: Vec<DeviceFd>,
    pub(super) vm: VmFd,
}

impl BareMachine {
    /// Creates the machine that the address map describes, with a GIC of this revision.
    pub(super) fn new(revision: u8) -> Result<Self, Failure> {
        let vm = Kvm::new()?.create_vm_with_ipa_size(ADDRESS_BITS)?;
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init)?;
        let gic = create(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3)?;
        let cpus = (0..CPUS)
            .map(|number| {
                let cpu = vm.create_vcpu(number.into())?;
                cpu.vcpu_init(&init)?;
                Ok(cpu)
            })
            .collect::<Result<_, kvm_ioctls::Error>>()?;
        let identification = Attribute::Distributor { offset: gicd::IIDR.offset() };
        for (attribute, value) in [
            (Attribute::InterruptCount, INTERRUPTS.into()),
            (Attribute::Address(frame::DISTRIBUTOR), DISTRIBUTOR),
            (Attribute::Address(frame::REDISTRIBUTORS), REDISTRIBUTORS),
            (Attribute::Control(control::INIT), 0),
            (identification, iidr(revision).into_bits().into()),
        ] {
            set(&gic, attribute, value)?;
        }
        let its = ITS
            .into_iter()
            .map(|base| {
                let its = create(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)?;
                set(&its, Attribute::Address(frame::ITS), base)?;
                set(&its, Attribute::Control(control::INIT), 0)?;
                Ok(its)
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Self { cpus, gic, its, vm })
    }
}

fn set(device: &DeviceFd, attribute: Attribute, mut value: u64) -> Result<(), Failure> {
    let request = kvm_device_attr {
        group: attribute.group(),
        attr: attribute.number(),
        addr: &raw mut value as u64,
        flags: 0,
    };
    device
        .set_device_attr(&request)
        .map_err(|error| format!("{attribute:x?} = {value:#x}: {}", errno(error)).into())
}

fn create(vm: &VmFd, kind: u32) -> Result<DeviceFd, Failure> {
    let mut device = kvm_create_device { type_: kind, fd: 0, flags: 0 };
    Ok(vm.create_device(&mut device)?)
}

pub(super) fn errno(error: kvm_ioctls::Error) -> Errno {
    // The case fails regardless of the error number.
    Errno::from_number(error.errno()).unwrap_or(Errno::NoAccess)
}
