//! Synchronization primitives for look-ups and changes. Every access is sequentially consistent; a
//! house lint refuses other orderings in this crate.
//!
//! Tests that are compiled with `--cfg shuttle` use the primitives of a scheduler that explores
//! interleavings but does not reorder accesses. Because every access is sequentially consistent and
//! no data race exists, the C11 memory model guarantees that weakly ordered CPUs have no other
//! executions than interleavings. The checks do not try all of them: see the module
//! `interleavings`.
//!
//! `OnceBox`, which publishes the pages of route tables, and `Arc` are neither sequentially
//! consistent nor known to the scheduler, so no check switches threads within them. A page is
//! published, with release and acquire ordering, before a writer stores the routes in it. A reader
//! that finds no page finds no route, and checks once more whether the identity mapping has ended
//! in the meantime (`table`).

#[cfg(not(all(test, shuttle)))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
    #[cfg(feature = "std")]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(all(test, shuttle))]
mod imp {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

pub(crate) use core::sync::atomic::Ordering::SeqCst;
pub(crate) use imp::*;
