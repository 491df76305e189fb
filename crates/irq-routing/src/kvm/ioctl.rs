//! System calls on a KVM virtual machine. Arguments are word arrays laid out as the interface
//! requires.
//!
//! Sources: Linux, Documentation/virt/kvm/api.rst, under the names of the calls;
//! include/uapi/linux/kvm.h for the layouts.
// UNSAFETY: rustix can make any ioctl, but can't know how much memory the kernel accesses.
#![expect(unsafe_code, reason = "the kernel takes a pointer, and each opcode encodes a size")]

use crate::kvm_table;
use crate::{Route, RoutedMessage};
use core::ffi::c_void;
use core::ptr;
use msi_types::Gsi;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// Irqchip number for pins; `KVM_IRQCHIP_IOAPIC` on x86.
#[cfg(target_arch = "aarch64")]
const IRQCHIP: u32 = 0;
#[cfg(target_arch = "x86_64")]
const IRQCHIP: u32 = 2;

const KVMIO: u8 = 0xae;
const CHECK_EXTENSION: Opcode = opcode::none(KVMIO, 0x03);
const IRQ_LINE: Opcode = opcode::write::<[u32; 2]>(KVMIO, 0x61);
#[cfg(target_arch = "x86_64")]
const GET_IRQCHIP: Opcode = opcode::read_write::<Irqchip>(KVMIO, 0x62);
const SET_GSI_ROUTING: Opcode = opcode::write::<[u8; kvm_table::HEADER_SIZE]>(KVMIO, 0x6a);
const IRQFD: Opcode = opcode::write::<[u32; 8]>(KVMIO, 0x76);
const SIGNAL_MSI: Opcode = opcode::write::<[u32; 8]>(KVMIO, 0xa5);

const CAP_IRQ_ROUTING: usize = 25;
const IRQFD_DEASSIGN: u32 = 1;
const IRQFD_RESAMPLE: u32 = 2;

/// `struct kvm_irqchip`: the chip's number, padding, and 512 bytes of state.
#[cfg(target_arch = "x86_64")]
type Irqchip = [u32; 130];

/// A call's argument: either a number, or memory of the size that the opcode encodes.
enum Argument<'a> {
    Number(usize),
    Words(&'a mut [u32]),
    /// A `struct kvm_irq_routing` with as many entries as its header says.
    Table(&'a mut [u8]),
}

struct Call<'a> {
    opcode: Opcode,
    argument: Argument<'a>,
}

// SAFETY: The kernel reads and writes as many bytes as the opcode encodes, and our callers pass
// memory of that size; a table's entries follow its header. The output is the system call's return
// value.
unsafe impl Ioctl for Call<'_> {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        match &mut self.argument {
            Argument::Number(number) => ptr::without_provenance_mut(*number),
            Argument::Words(words) => words.as_mut_ptr().cast(),
            Argument::Table(bytes) => bytes.as_mut_ptr().cast(),
        }
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> Result<Self::Output> {
        Ok(result)
    }
}

fn call(vm: BorrowedFd<'_>, opcode: Opcode, argument: Argument<'_>) -> Result<u32> {
    // SAFETY: See `Call`. If the descriptor isn't a VM, the call fails.
    let result = unsafe { ioctl(vm, Call { opcode, argument }) }?;
    u32::try_from(result).map_err(|_| Errno::INVAL)
}

/// Returns the number of GSIs, or 0 if the kernel has no GSI routing.
pub(super) fn gsis(vm: BorrowedFd<'_>) -> Result<u32> {
    call(vm, CHECK_EXTENSION, Argument::Number(CAP_IRQ_ROUTING))
}

/// Returns `true` if the kernel emulates the I/O APIC. With a split irqchip, the VMM emulates the
/// I/O APIC instead.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_ioapic(vm: BorrowedFd<'_>) -> Result<bool> {
    let mut chip: Irqchip = [0; 130];
    chip[0] = IRQCHIP;
    match call(vm, GET_IRQCHIP, Argument::Words(&mut chip)) {
        Ok(_) => Ok(true),
        Err(Errno::NXIO) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets the whole routing table.
pub(super) fn set_gsi_routing(
    vm: BorrowedFd<'_>,
    routes: impl ExactSizeIterator<Item = (Gsi, Route)>,
) -> Result<()> {
    let mut bytes = kvm_table::encode_for(IRQCHIP, routes);
    call(vm, SET_GSI_ROUTING, Argument::Table(&mut bytes)).map(drop)
}

/// Sends a message. Returns 0 if the guest blocked the message.
pub(super) fn signal_msi(vm: BorrowedFd<'_>, routed: RoutedMessage) -> Result<u32> {
    let (flags, device) = kvm_table::identity(routed.sender);
    let message = routed.message;
    let (low, high) = (message.address_low(), message.address_high());
    let mut words = [low, high, message.data, flags, device, 0, 0, 0];
    call(vm, SIGNAL_MSI, Argument::Words(&mut words))
}

/// Drives a line.
pub(super) fn irq_line(vm: BorrowedFd<'_>, line: u32, high: bool) -> Result<()> {
    call(vm, IRQ_LINE, Argument::Words(&mut [line, high.into()])).map(drop)
}

/// Binds an eventfd to a GSI, as a level if `resample` is present.
pub(super) fn bind(
    vm: BorrowedFd<'_>,
    trigger: BorrowedFd<'_>,
    resample: Option<BorrowedFd<'_>>,
    gsi: Gsi,
) -> Result<()> {
    let flags = if resample.is_some() { IRQFD_RESAMPLE } else { 0 };
    let resample = resample.map_or(0, number);
    let mut words = [number(trigger), gsi.get(), flags, resample, 0, 0, 0, 0];
    call(vm, IRQFD, Argument::Words(&mut words)).map(drop)
}

/// Unbinds an eventfd. On return, the kernel has finished serving the eventfd's signals.
pub(super) fn unbind(vm: BorrowedFd<'_>, trigger: BorrowedFd<'_>, gsi: Gsi) -> Result<()> {
    let mut words = [number(trigger), gsi.get(), IRQFD_DEASSIGN, 0, 0, 0, 0, 0];
    call(vm, IRQFD, Argument::Words(&mut words)).map(drop)
}

fn number(eventfd: BorrowedFd<'_>) -> u32 {
    eventfd.as_raw_fd().cast_unsigned()
}
