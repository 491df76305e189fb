//! Atomic primitives of handler cells. Every access is sequentially consistent; a house lint
//! refuses other orderings in the files that use them.
//!
//! Tests that are compiled with `--cfg shuttle` use the primitives of a scheduler that explores
//! interleavings but does not reorder accesses. Because every access is sequentially consistent and
//! the code has no data races, the C11 memory model guarantees that these interleavings are all
//! possible executions, even on weakly ordered CPUs.

#[cfg(not(all(test, shuttle)))]
pub(crate) use core::sync::atomic::AtomicU32;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::AtomicU32;

pub(crate) use core::sync::atomic::Ordering::SeqCst;
