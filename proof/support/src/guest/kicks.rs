//! Counts the kicks of vCPUs.

use msi_types::{Cpu, Kick};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Counts kicks by vCPU, and wakes the threads that wait for kicks.
#[derive(Debug)]
pub struct Kicks {
    counts: Mutex<Vec<usize>>,
    kicked: Condvar,
}

impl Kicks {
    /// Creates counters for `cpus` vCPUs.
    pub fn new(cpus: usize) -> Self {
        Self { counts: Mutex::new(vec![0; cpus]), kicked: Condvar::new() }
    }

    fn counts(&self) -> MutexGuard<'_, Vec<usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of times that a vCPU has been kicked.
    pub fn of(&self, cpu: usize) -> usize {
        self.counts()[cpu]
    }

    /// Returns the total number of kicks of all vCPUs.
    pub fn total(&self) -> usize {
        self.counts().iter().sum()
    }

    /// Sleeps until the vCPU has been kicked more than `seen` times, and returns the number of
    /// times that it has been kicked.
    ///
    /// # Panics
    /// Panics if no kick arrives within half a minute.
    pub fn wait(&self, cpu: usize, seen: usize) -> usize {
        let sleeps = |counts: &mut Vec<usize>| counts[cpu] <= seen;
        let woken = self.kicked.wait_timeout_while(self.counts(), PATIENCE, sleeps);
        let (counts, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "vCPU {cpu} was not kicked in time");
        counts[cpu]
    }
}

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.counts()[cpu.index()] += 1;
        self.kicked.notify_all();
    }
}
