//! CPUs: the trap loop, and how a CPU sleeps.

mod core;
mod sleepers;
mod threads;

#[cfg(test)]
pub(crate) use self::core::Registers;
pub(crate) use self::core::{CpuBooks, CpuCore, Gic, looked_at};
pub(crate) use sleepers::Sleepers;
pub(crate) use threads::CpuThreads;
