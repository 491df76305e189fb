//! CPUs: the trap loop, and how a CPU sleeps.

mod core;
mod sleepers;
mod threads;
mod work;

#[cfg(test)]
pub(crate) use self::core::Registers;
pub(crate) use self::core::{CpuCore, CpuRecords, DirectLpi, Gic, Its, looked_at};
pub(crate) use sleepers::{NoKick, Sleepers};
pub(crate) use threads::CpuThreads;
pub(crate) use work::{Cpus, Work, call};
