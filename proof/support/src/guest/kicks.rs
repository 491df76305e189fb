//! Counts the kicks of vCPUs.

use msi_types::{Cpu, Kick};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Counts kicks by vCPU, and wakes the threads that wait for kicks.
#[derive(Debug)]
pub struct Kicks(Vec<Kicked>);

/// The kicks of a vCPU.
#[derive(Debug, Default)]
struct Kicked {
    count: AtomicUsize,
    /// `true` if the vCPU was kicked since the last [`Kicks::take`].
    flag: Arc<AtomicBool>,
    waits: Mutex<()>,
    wake: Condvar,
}

impl Kicked {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the vCPU's thread, which then checks the condition that it waits for.
    fn wake(&self) {
        drop(self.lock());
        self.wake.notify_all();
    }
}

impl Kicks {
    /// Creates counters for `cpus` vCPUs.
    pub fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| Kicked::default()).collect())
    }

    /// Returns the number of times that a vCPU has been kicked.
    pub fn of(&self, cpu: usize) -> usize {
        self.0[cpu].count.load(SeqCst)
    }

    /// Returns the total number of kicks of all vCPUs.
    pub fn total(&self) -> usize {
        (0..self.0.len()).map(|cpu| self.of(cpu)).sum()
    }

    /// Returns `true` if the vCPU was kicked since the last call.
    pub fn take(&self, cpu: usize) -> bool {
        self.0[cpu].flag.swap(false, SeqCst)
    }

    /// Returns a flag that each kick of the vCPU sets.
    pub fn flag(&self, cpu: usize) -> Arc<AtomicBool> {
        self.0[cpu].flag.clone()
    }

    /// Sleeps until the vCPU is kicked, or until `stop` is set and [`wake_all`](Self::wake_all) is
    /// called. A kick that the model forgets is not made up for.
    pub fn sleep(&self, cpu: usize, stop: &AtomicBool) {
        let Kicked { wake, .. } = &self.0[cpu];
        let sleeps = |(): &mut ()| !self.take(cpu) && !stop.load(SeqCst);
        drop(wake.wait_while(self.0[cpu].lock(), sleeps));
    }

    /// Wakes all vCPUs, after the caller has set `stop`.
    pub fn wake_all(&self) {
        self.0.iter().for_each(Kicked::wake);
    }
}

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        let kicked = &self.0[cpu.index()];
        kicked.count.fetch_add(1, SeqCst);
        kicked.flag.store(true, SeqCst);
        kicked.wake();
    }
}
