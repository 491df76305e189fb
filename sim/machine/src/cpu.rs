//! The machine's CPUs, with their trap loop, sleep and wake-up.

mod core;
mod sleepers;
mod threads;
mod work;

pub use self::core::CpuRegisters;
pub(crate) use self::core::{CpuCore, CpuRecords, Its, Timing, looked_at};
pub(crate) use sleepers::{NoKick, SleepingCpus};
pub(crate) use threads::CpuThreads;
pub(crate) use work::{Cpus, Work, call};
