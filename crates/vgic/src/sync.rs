//! The synchronization primitives under what threads share: LPI entries and ready bits, wired
//! interrupts and their lists, wake-up state, and the locks of cold state.
//!
//! Every access is sequentially consistent; a house lint refuses other orderings in this crate. On
//! x86 they would cost the same: the hot paths' writes are read-modify-writes. On Arm, loads become
//! `LDAR` and read-modify-writes `CASAL` or `LDSETAL`.
//!
//! Tests that are compiled with `--cfg shuttle` get the primitives of a scheduler that explores
//! interleavings and reorders nothing. Every access is sequentially consistent, and there is no
//! data race. So these are all executions, on weakly ordered CPUs, too (the C11 memory model's
//! guarantee).
//!
//! Pages of tables come by `OnceBox`, which publishes them with release and acquire. A page is
//! there before the entry or bit that leads to it is written, and a reader follows that to the
//! page.

pub(crate) mod lock;
pub(crate) mod set_once;
pub(crate) mod summary;

#[cfg(not(all(test, shuttle)))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
    #[cfg(feature = "std")]
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

#[cfg(all(test, shuttle))]
mod imp {
    pub(crate) use crate::interleavings::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering,
    };
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}

pub(crate) use imp::*;
