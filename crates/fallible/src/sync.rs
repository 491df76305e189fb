//! Atomic counter for shared ownership. Every access is sequentially consistent; a project lint
//! rejects other orderings in the files that use it.
//!
//! With `--cfg shuttle`, tests use shuttle's counter instead so that its scheduler can explore
//! interleavings.

#[cfg(not(all(test, shuttle)))]
pub(crate) use core::sync::atomic::AtomicUsize;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::AtomicUsize;

pub(crate) use core::sync::atomic::Ordering::SeqCst;
