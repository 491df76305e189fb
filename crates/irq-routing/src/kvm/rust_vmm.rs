//! Adapter that implements `AsFd` for rust-vmm's machines and eventfds.
// UNSAFETY: `VmFd` and `EventFd` expose their descriptors only as numbers.
#![expect(unsafe_code, reason = "the number stays a valid descriptor while its owner is borrowed")]

use alloc::sync::Arc;
use kvm_ioctls::VmFd;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use vmm_sys_util::eventfd::EventFd;

/// Wrapper of a `kvm_ioctls::VmFd` or a `vmm_sys_util::eventfd::EventFd`, by value, by reference or
/// in an `Arc`, for functions that take [`AsFd`].
#[derive(Clone, Copy, Debug)]
pub struct RustVmm<T>(pub T);

/// Owner of a file descriptor.
pub trait FdOwner: sealed::Sealed {}

mod sealed {
    use rustix::fd::RawFd;

    /// Implemented only for owners, which keep the descriptor open as long as they exist.
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
        // SAFETY: the owner is borrowed as long as the result, and does not close its descriptor
        // before it is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0.number()) }
    }
}
