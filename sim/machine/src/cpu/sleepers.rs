//! Sleep and wake-up. A kick that arrives before the CPU sleeps isn't lost.

use doorbell_hardware::lock::ParkedThread;
use msi_types::{Cpu, Kick};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

/// A waker for each CPU.
#[derive(Debug)]
pub(crate) struct SleepingCpus {
    wakers: Box<[CpuWaker]>,
    /// Number of kicks.
    calls: AtomicU64,
}

#[derive(Debug, Default)]
struct CpuWaker {
    /// Set if the CPU was kicked and has not yet responded to the kick.
    called: AtomicBool,
    /// Set while the CPU's thread sleeps and has not responded to a kick.
    asleep: AtomicBool,
    parked: ParkedThread,
}

impl SleepingCpus {
    pub(crate) fn new(cpus: usize) -> Self {
        let wakers = (0..cpus).map(|_| CpuWaker::default()).collect();
        Self { wakers, calls: AtomicU64::new(0) }
    }

    /// Sleeps until `cpu` is kicked. Returns immediately if `cpu` was kicked since its last
    /// response to a kick.
    pub(crate) fn sleep(&self, cpu: Cpu) {
        let Some(waker) = self.wakers.get(cpu.index()) else { return };
        waker.asleep.store(true, SeqCst);
        while !waker.called.load(SeqCst) {
            waker.parked.park_unless(|| waker.called.load(SeqCst), thread::park);
        }
        waker.asleep.store(false, SeqCst);
        self.answer(cpu);
    }

    /// Responds to a kick. Returns `true` if `cpu` was kicked since its last response.
    pub(crate) fn answer(&self, cpu: Cpu) -> bool {
        self.wakers.get(cpu.index()).is_some_and(|waker| waker.called.swap(false, SeqCst))
    }

    /// Wakes `cpu`, or keeps it from going to sleep.
    pub(crate) fn call(&self, cpu: Cpu) {
        if let Some(waker) = self.wakers.get(cpu.index()) {
            waker.called.store(true, SeqCst);
            // Counted before the caller can go to sleep itself, see `are_asleep`.
            self.calls.fetch_add(1, SeqCst);
            waker.parked.unpark();
        }
    }

    /// Returns `true` if there was a time during this call at which the first `count` CPUs all
    /// slept and none of them had been kicked.
    pub(crate) fn are_asleep(&self, count: usize) -> bool {
        let calls = self.calls.load(SeqCst);
        let sleeps = |waker: &CpuWaker| waker.asleep.load(SeqCst) && !waker.called.load(SeqCst);
        self.wakers.iter().take(count).all(sleeps) && self.calls.load(SeqCst) == calls
    }
}

impl Kick for SleepingCpus {
    fn kick(&self, cpu: Cpu) {
        self.call(cpu);
    }
}
