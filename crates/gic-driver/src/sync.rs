//! Atomic words of lock-free code. Every access is sequentially consistent; a project lint rejects
//! other orderings in the files that use them.
//!
//! With `--cfg shuttle`, tests use shuttle's words instead so that its scheduler can explore
//! interleavings.

#[cfg(not(all(test, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64};

pub(crate) use core::sync::atomic::Ordering::SeqCst;
