//! The machine's CPUs, with their trap loop, sleep and wake-up.

mod core;
mod sleepers;
mod threads;
mod work;

pub use self::core::CpuRegisters;
pub(crate) use self::core::{CpuCore, CpuRecords, Timing, UnhandledCounts, looked_at};
pub(crate) use sleepers::SleepingCpus;
pub(crate) use threads::CpuThreads;
pub(crate) use work::{Cpus, Work, call};
