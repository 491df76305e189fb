//! CPUs: the trap loop, and how a CPU sleeps.

mod core;
mod sleepers;
mod threads;

pub(crate) use self::core::{CpuCore, Gic, Unclaimed, looked_at};
pub(crate) use sleepers::Sleepers;
pub(crate) use threads::CpuThreads;
