//! The atomics under what wired interrupts share between threads. Tests compile the same sources against a scheduler's
//! atomics, which try every interleaving; since all accesses are sequentially consistent, these are all executions.

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
