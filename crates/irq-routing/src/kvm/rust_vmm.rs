//! Implements `AsFd` for rust-vmm's VMs and eventfds.
// UNSAFETY: `VmFd` and `EventFd` only expose their descriptors as numbers.
#![expect(unsafe_code, reason = "the number stays a valid descriptor while its owner is borrowed")]

use alloc::sync::Arc;
use kvm_ioctls::VmFd;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use vmm_sys_util::eventfd::EventFd;

/// Wraps a `kvm_ioctls::VmFd` or a `vmm_sys_util::eventfd::EventFd`, by value, by reference or in
/// an `Arc`, for functions that take [`AsFd`].
#[derive(Clone, Copy, Debug)]
pub struct RustVmm<T>(pub T);

/// Something that owns a file descriptor.
pub trait FdOwner: sealed::Sealed {}

mod sealed {
    use rustix::fd::RawFd;

    /// This trait is implemented only for owners, which keep the descriptor open for as long as
    /// they exist.
    pub trait Sealed {
        fn number(&self) -> RawFd;
    }
}

impl sealed::Sealed for VmFd {
    fn number(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl sealed::Sealed for EventFd {
    fn number(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl<T: FdOwner> sealed::Sealed for &T {
    fn number(&self) -> RawFd {
        (**self).number()
    }
}

impl<T: FdOwner> sealed::Sealed for Arc<T> {
    fn number(&self) -> RawFd {
        (**self).number()
    }
}

impl FdOwner for VmFd {}
impl FdOwner for EventFd {}
impl<T: FdOwner> FdOwner for &T {}
impl<T: FdOwner> FdOwner for Arc<T> {}

impl<T: FdOwner> AsFd for RustVmm<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: The result borrows the owner, which doesn't close its descriptor before it is
        // dropped.
        unsafe { BorrowedFd::borrow_raw(self.0.number()) }
    }
}
