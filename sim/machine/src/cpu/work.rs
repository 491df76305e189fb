//! Work that a task has one CPU do.

use super::core::CpuCore;
use doorbell_hardware::lock::lock;
use msi_types::Cpu;
use std::sync::{Arc, Mutex};

/// Work for a CPU.
pub(crate) type Work = Box<dyn FnOnce(&CpuCore) + Send>;

/// The machine's CPUs, however they run.
pub(crate) trait Cpus {
    /// The number of CPUs.
    fn count(&self) -> usize;
    /// Has `cpu` do `work`, and returns when it is done.
    fn run_on(&self, cpu: Cpu, work: Work);
}

/// Has `cpu` do `work` and returns its result; `None` if the CPU dropped it.
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
