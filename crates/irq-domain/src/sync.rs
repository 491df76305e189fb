//! Atomic primitives for handler cells. Every access is sequentially consistent; a project lint
//! rejects other orderings in the files that use them.
//!
//! With `--cfg shuttle`, tests use a scheduler that explores interleavings but doesn't reorder
//! accesses. Reordering need not be explored: every access is sequentially consistent and the code
//! has no data races, so the C11 memory model guarantees that these interleavings are all possible
//! executions, even on weakly ordered CPUs.

#[cfg(not(all(test, shuttle)))]
pub(crate) use core::sync::atomic::AtomicU32;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::AtomicU32;

pub(crate) use core::sync::atomic::Ordering::SeqCst;
