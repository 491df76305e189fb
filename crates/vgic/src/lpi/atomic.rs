//! The atomics that the lock-free part stands on. The model check compiles the same sources against a scheduler's
//! atomics in place of these.

pub(super) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
