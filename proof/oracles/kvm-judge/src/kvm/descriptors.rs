//! Takes a snapshot through the file descriptors of a VM's devices and vCPUs, as a VMM would.

use crate::Failure;
use gic_arch::Affinity;
use kvm_bindings::{KVM_MP_STATE_STOPPED, kvm_device_attr};
use kvm_ioctls::{DeviceFd, VcpuFd};
use std::sync::Arc;
use vgic::GuestMemory;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::snapshot::{KvmAttributes, KvmSnapshot, SnapshotCpu};

/// KVM's register ID of `MPIDR_EL1`: `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG` and
/// the register's encoding.
const MPIDR: u64 = 0x6030_0000_0013_c005;

/// Takes a snapshot of a VM's GICv3 and ITSes. No vCPU may be running. `cpus` must contain all
/// vCPUs in the order of their `vcpu_id`, starting at 0.
pub fn snapshot(
    devices: &Descriptors,
    cpus: &[VcpuFd],
    memory: &dyn GuestMemory,
) -> Result<KvmSnapshot, Failure> {
    let mut devices = devices.clone();
    let its = devices.its.len();
    Ok(KvmSnapshot::take(&mut devices, snapshot_cpus(cpus)?, its, memory)?)
}

/// Reads what a snapshot contains of each vCPU.
pub(super) fn snapshot_cpus(cpus: &[VcpuFd]) -> Result<Vec<SnapshotCpu>, Failure> {
    let mut saved = Vec::new();
    for (number, cpu) in (0..).zip(cpus) {
        let mut mpidr = [0; 8];
        cpu.get_one_reg(MPIDR, &mut mpidr)?;
        let affinity = Affinity::from_mpidr(u64::from_le_bytes(mpidr));
        let stopped = Some(cpu.get_mp_state()?.mp_state == KVM_MP_STATE_STOPPED);
        saved.push(SnapshotCpu::new(affinity, number, stopped));
    }
    Ok(saved)
}

/// File descriptors of a VM's devices.
#[derive(Clone, Debug)]
pub struct Descriptors {
    /// The GICv3.
    pub gic: Arc<DeviceFd>,
    /// The ITSes.
    pub its: Arc<[DeviceFd]>,
}

impl Descriptors {
    /// Returns whether a device has an attribute.
    pub(super) fn has(&self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno> {
        self.device(device)?.has_device_attr(&request(attribute, 0)).map_err(errno)
    }

    fn device(&self, device: KvmDevice) -> Result<&DeviceFd, Errno> {
        match device {
            KvmDevice::Gic => Ok(&self.gic),
            KvmDevice::Its(index) => self.its.get(index).ok_or(Errno::NoDevice),
        }
    }
}

impl KvmAttributes for Descriptors {
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        let mut value = 0_u64;
        let mut request = request(attribute, (&raw mut value) as u64);
        // SAFETY: the kernel writes at most the eight bytes of an attribute, and `value` has room
        // for them.
        unsafe { self.device(device)?.get_device_attr(&mut request) }.map_err(errno)?;
        Ok(value)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        let request = request(attribute, (&raw const value) as u64);
        self.device(device)?.set_device_attr(&request).map_err(errno)
    }
}

/// Returns an access to an attribute, whose value is at an address.
fn request(attribute: Attribute, addr: u64) -> kvm_device_attr {
    kvm_device_attr { group: attribute.group(), attr: attribute.number(), addr, flags: 0 }
}

fn errno(error: kvm_ioctls::Error) -> Errno {
    // The case fails regardless of the error number.
    Errno::from_number(error.errno()).unwrap_or(Errno::NoAccess)
}
