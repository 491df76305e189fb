//! The synchronization primitives under look-ups and changes. Every access is sequentially
//! consistent; a house lint refuses other orderings in this crate.
//!
//! Tests that are compiled with `--cfg shuttle` get the primitives of a scheduler that explores
//! interleavings and reorders nothing. Every access is sequentially consistent, and there is no
//! data race. So these are all executions, on weakly ordered CPUs, too (the C11 memory model's
//! guarantee).

#[cfg(not(all(test, shuttle)))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64};
    #[cfg(feature = "std")]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(all(test, shuttle))]
mod imp {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

pub(crate) use core::sync::atomic::Ordering::SeqCst;
pub(crate) use imp::*;
