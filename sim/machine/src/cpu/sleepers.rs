//! Sleep and wake-up. A kick that arrives before the CPU sleeps isn't lost.

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
    /// Set if the CPU was kicked and has not yet responded to the kick.
    called: Mutex<bool>,
    condvar: Condvar,
}

impl SleepingCpus {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { wakers: (0..cpus).map(|_| CpuWaker::default()).collect() }
    }

    /// Sleeps until `cpu` is kicked. Returns immediately if `cpu` was kicked since its last
    /// response to a kick.
    pub(crate) fn sleep(&self, cpu: Cpu) {
        let Some(waker) = self.wakers.get(cpu.index()) else { return };
        let mut called = lock(&waker.called);
        while !*called {
            called = waker.condvar.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
        *called = false;
    }

    /// Responds to a kick. Returns `true` if `cpu` was kicked since its last response.
    pub(crate) fn answer(&self, cpu: Cpu) -> bool {
        self.wakers.get(cpu.index()).is_some_and(|waker| std::mem::take(&mut *lock(&waker.called)))
    }

    /// Wakes `cpu`, or keeps it from going to sleep.
    pub(crate) fn call(&self, cpu: Cpu) {
        if let Some(waker) = self.wakers.get(cpu.index()) {
            *lock(&waker.called) = true;
            waker.condvar.notify_one();
        }
    }
}

/// A [`Kick`] that does nothing, for CPUs that poll for interrupts.
pub(crate) struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

impl Kick for SleepingCpus {
    fn kick(&self, cpu: Cpu) {
        self.call(cpu);
    }
}
