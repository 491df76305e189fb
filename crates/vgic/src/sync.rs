//! Synchronization primitives for all state shared between threads, i.e. LPI entries and ready
//! bits, wired interrupts and their candidate bits, wake-up state, and state protected by locks.
//!
//! Every access is sequentially consistent; a house lint refuses other orderings in this crate,
//! except for values that only diagnostics read (`published`). On x86, weaker orderings wouldn't be
//! any cheaper, because all writes on hot paths are read-modify-writes. On Arm, loads become
//! `LDAR`, and read-modify-writes become `CASAL` or `LDSETAL`.
//!
//! Tests compiled with `--cfg shuttle` use the primitives of a scheduler that switches threads at
//! each access but doesn't reorder accesses. Because the accesses are sequentially consistent and
//! no data races exist, each of their executions, including those on weakly ordered CPUs, is an
//! interleaving (the C11 memory model's guarantee). The checks don't try every interleaving: see
//! the module `interleavings` for those that are exhaustive and for the size of the samples.
//!
//! The following are neither sequentially consistent nor known to the scheduler, so the checks
//! never switch threads within them, and their correctness rests on the given argument alone:
//!
//! - `OnceBox` publishes table pages with release and acquire ordering. A page is published before
//!   the entry or bit that refers to it is written, so a reader that follows the reference finds
//!   the page.
//! - `spin::Once` (`set_once`) publishes observers and links with release and acquire ordering. A
//!   reader that finds the cell empty behaves as before the value was set.
//! - `Arc` counts references with relaxed and acquire-release ordering. No decision depends on a
//!   count.
//! - `Published` values are relaxed. Only diagnostics read them.

pub(crate) mod lock;
pub(crate) mod published;
pub(crate) mod set_once;
pub(crate) mod summary;

#[cfg(not(all(test, shuttle)))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
    #[cfg(feature = "std")]
    pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
}

#[cfg(all(test, shuttle))]
mod imp {
    pub(crate) use crate::interleavings::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering,
    };
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
}

pub(crate) use imp::*;
