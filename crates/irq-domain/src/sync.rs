//! The primitives under handler cells. Every access is sequentially
//! consistent; a house lint refuses other orderings in the files that use them.
//!
//! Tests that are compiled with `--cfg shuttle` get the primitives of a scheduler that explores
//! interleavings and reorders nothing. Every access is sequentially consistent, and there is no
//! data race. So these are all executions, on weakly ordered CPUs, too (the C11 memory model's
//! guarantee).

#[cfg(not(all(test, shuttle)))]
pub(crate) use core::sync::atomic::AtomicU32;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::AtomicU32;

pub(crate) use core::sync::atomic::Ordering::SeqCst;
