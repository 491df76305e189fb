//! The atomic counter for shared ownership. Every access is sequentially consistent; a house lint
//! refuses other orderings in the files that use it.
//!
//! Tests that are compiled with `--cfg shuttle` use the counter of a scheduler that explores
//! interleavings.

#[cfg(not(all(test, shuttle)))]
pub(crate) use core::sync::atomic::AtomicUsize;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::AtomicUsize;

pub(crate) use core::sync::atomic::Ordering::SeqCst;
