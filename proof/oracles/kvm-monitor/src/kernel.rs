//! Memory that is passed to the kernel: the guest's RAM, and one memory region of a function.
//!
//! `unsafe` is needed because the kernel and a device access this memory without the compiler's
//! knowledge. The program itself accesses RAM only through `vm-memory`, and never accesses the
//! region.
#![expect(unsafe_code, reason = "the kernel accesses memory that is passed to it")]

use crate::failure::Failure;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::os::fd::AsRawFd;
use std::ptr;
use vfio_ioctls::{VfioContainer, VfioDevice};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The guest's memory slots.
const RAM_SLOT: u32 = 0;
const REGION_SLOT: u32 = 1;

/// Maps RAM into the guest. The mapping is never removed.
pub(crate) fn lend_ram(
    vm: &VmFd,
    ram: &'static GuestMemoryMmap<()>,
    address: u64,
    bytes: u64,
) -> Result<(), Failure> {
    let host = ram.get_host_address(GuestAddress(address))? as u64;
    lend(vm, RAM_SLOT, address, bytes, host)
}

/// Maps a function's memory region 0 into the guest.
pub(crate) fn lend_region(vm: &VmFd, device: &VfioDevice, address: u64) -> Result<(), Failure> {
    let (bytes, offset) = (device.get_region_size(0), device.get_region_offset(0));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the device keeps its file descriptor open during the call. The new mapping doesn't
    // overlap any other, and no references into it are created.
    let host = unsafe {
        let device = BorrowedFd::borrow_raw(device.as_raw_fd());
        mmap(ptr::null_mut(), usize::try_from(bytes)?, access, MapFlags::SHARED, device, offset)?
    };
    lend(vm, REGION_SLOT, address, bytes, host as u64)
}

/// Maps RAM for DMA by a function, at the addresses that the guest uses.
pub(crate) fn reach_ram(
    container: &VfioContainer,
    ram: &'static GuestMemoryMmap<()>,
) -> Result<(), Failure> {
    // SAFETY: RAM is never unmapped, and all accesses go through `vm-memory`, which doesn't create
    // references into it.
    unsafe { container.vfio_map_guest_memory(ram) }?;
    Ok(())
}

fn lend(vm: &VmFd, slot: u32, address: u64, bytes: u64, host: u64) -> Result<(), Failure> {
    let region = kvm_userspace_memory_region {
        slot,
        guest_phys_addr: address,
        memory_size: bytes,
        userspace_addr: host,
        flags: 0,
    };
    // SAFETY: the callers' mappings are never removed, and this program holds no references into
    // them.
    unsafe { vm.set_user_memory_region(region) }?;
    Ok(())
}
