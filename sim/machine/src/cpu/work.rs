//! Work that a task runs on a particular CPU.

use super::core::CpuCore;
use doorbell_hardware::lock::lock;
use msi_types::Cpu;
use std::sync::{Arc, Mutex};

/// Work for a CPU.
pub(crate) type Work = Box<dyn FnOnce(&CpuCore) + Send>;

/// The machine's CPUs, independent of how they are scheduled.
pub(crate) trait Cpus {
    /// Returns the number of CPUs.
    fn count(&self) -> usize;
    /// Runs `work` on `cpu` and returns when the work has finished.
    fn run_on(&self, cpu: Cpu, work: Work);
}

/// Runs `work` on `cpu` and returns its result, or `None` if the CPU dropped the work.
pub(crate) fn call<R: Send + 'static>(
    cpus: &dyn Cpus,
    cpu: Cpu,
    work: impl FnOnce(&CpuCore) -> R + Send + 'static,
) -> Option<R> {
    let result = Arc::new(Mutex::new(None));
    let theirs = Arc::clone(&result);
    cpus.run_on(cpu, Box::new(move |core| *lock(&theirs) = Some(work(core))));
    lock(&result).take()
}
