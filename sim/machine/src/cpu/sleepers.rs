//! Sleep and wake-up. A kick that arrives before the CPU sleeps isn't lost.

use doorbell_hardware::lock::ParkedThread;
use msi_types::{Cpu, Kick};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// A waker for each CPU.
#[derive(Debug)]
pub(crate) struct SleepingCpus {
    wakers: Box<[CpuWaker]>,
}

#[derive(Debug, Default)]
struct CpuWaker {
    /// Set if the CPU was kicked and has not yet responded to the kick.
    called: AtomicBool,
    parked: ParkedThread,
}

impl SleepingCpus {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { wakers: (0..cpus).map(|_| CpuWaker::default()).collect() }
    }

    /// Sleeps until `cpu` is kicked. Returns immediately if `cpu` was kicked since its last
    /// response to a kick.
    pub(crate) fn sleep(&self, cpu: Cpu) {
        let Some(waker) = self.wakers.get(cpu.index()) else { return };
        while !self.answer(cpu) {
            waker.parked.park_unless(|| waker.called.load(SeqCst), thread::park);
        }
    }

    /// Responds to a kick. Returns `true` if `cpu` was kicked since its last response.
    pub(crate) fn answer(&self, cpu: Cpu) -> bool {
        self.wakers.get(cpu.index()).is_some_and(|waker| waker.called.swap(false, SeqCst))
    }

    /// Wakes `cpu`, or keeps it from going to sleep.
    pub(crate) fn call(&self, cpu: Cpu) {
        if let Some(waker) = self.wakers.get(cpu.index()) {
            waker.called.store(true, SeqCst);
            waker.parked.unpark();
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
