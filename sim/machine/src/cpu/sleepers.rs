//! Sleep and wake-up of CPUs. A kick before the sleep is not lost.

use doorbell_hardware::lock::lock;
use msi_types::{Cpu, Kick};
use std::sync::{Condvar, Mutex, PoisonError};

/// A waker for each CPU.
#[derive(Debug)]
pub(crate) struct SleepingCpus {
    wakers: Box<[CpuWaker]>,
}

#[derive(Debug, Default)]
struct CpuWaker {
    /// Somebody wants something of the CPU.
    called: Mutex<bool>,
    condvar: Condvar,
}

impl SleepingCpus {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { wakers: (0..cpus).map(|_| CpuWaker::default()).collect() }
    }

    /// Sleeps until `cpu` is called, or was since the last time.
    pub(crate) fn sleep(&self, cpu: Cpu) {
        let Some(waker) = self.wakers.get(cpu.index()) else { return };
        let mut called = lock(&waker.called);
        while !*called {
            called = waker.condvar.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
        *called = false;
    }

    /// Was `cpu` called since the last time?
    pub(crate) fn answer(&self, cpu: Cpu) -> bool {
        self.wakers.get(cpu.index()).is_some_and(|waker| std::mem::take(&mut *lock(&waker.called)))
    }

    /// Calls `cpu`.
    pub(crate) fn call(&self, cpu: Cpu) {
        if let Some(waker) = self.wakers.get(cpu.index()) {
            *lock(&waker.called) = true;
            waker.condvar.notify_one();
        }
    }
}

/// Kicks nobody: for CPUs that poll.
pub(crate) struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

impl Kick for SleepingCpus {
    fn kick(&self, cpu: Cpu) {
        self.call(cpu);
    }
}
