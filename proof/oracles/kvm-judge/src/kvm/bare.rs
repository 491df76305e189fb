//! Creates a KVM machine with its vCPUs, GICv3 and ITSes.

use super::descriptors::Descriptors;
use crate::Failure;
use crate::layout::{CPUS, DISTRIBUTOR, INTERRUPTS, ITS, REDISTRIBUTORS};
use crate::machine::iidr;
use gic_arch::gicd;
use kvm_bindings::{
    kvm_create_device, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, Kvm, VcpuFd, VmFd};
use std::sync::Arc;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, control, frame};
use vgic_kvm::snapshot::KvmAttributes as _;

/// Number of guest physical address bits.
const ADDRESS_BITS: u32 = 40;

/// A machine that has no memory yet.
#[derive(Debug)]
pub(super) struct BareMachine {
    pub(super) cpus: Vec<VcpuFd>,
    pub(super) devices: Descriptors,
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
        let its = ITS.map(|_| create(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS));
        let its = its.into_iter().collect::<Result<_, _>>()?;
        let mut devices = Descriptors { gic: Arc::new(gic), its };
        let identification = Attribute::Distributor { offset: gicd::IIDR.offset() };
        let gic = [
            (Attribute::InterruptCount, INTERRUPTS.into()),
            (Attribute::Address(frame::DISTRIBUTOR), DISTRIBUTOR),
            (Attribute::Address(frame::REDISTRIBUTORS), REDISTRIBUTORS),
            (Attribute::Control(control::INIT), 0),
            (identification, iidr(revision).into_bits().into()),
        ];
        let gic = gic.map(|(attribute, value)| (KvmDevice::Gic, attribute, value));
        let its = ITS.into_iter().enumerate().flat_map(|(index, base)| {
            [(Attribute::Address(frame::ITS), base), (Attribute::Control(control::INIT), 0)]
                .map(|(attribute, value)| (KvmDevice::Its(index), attribute, value))
        });
        for (device, attribute, value) in gic.into_iter().chain(its) {
            let set = devices.set(device, attribute, value);
            set.map_err(|errno| format!("{device:?}'s {attribute:x?} = {value:#x}: {errno}"))?;
        }
        Ok(Self { cpus, devices, vm })
    }
}

fn create(vm: &VmFd, kind: u32) -> Result<DeviceFd, Failure> {
    let mut device = kvm_create_device { type_: kind, fd: 0, flags: 0 };
    Ok(vm.create_device(&mut device)?)
}
