//! vCPU threads that sleep until they are kicked.

use msi_types::{Cpu, Kick};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, Thread};

/// Kick flags and threads of the vCPUs.
pub(crate) struct Kicks {
    flags: Vec<AtomicBool>,
    threads: Mutex<Vec<Option<Thread>>>,
    count: AtomicU64,
}

impl Kicks {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            flags: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
            threads: Mutex::new(vec![None; cpus]),
            count: AtomicU64::new(0),
        }
    }

    /// Declares that the calling thread runs this vCPU.
    pub(crate) fn attach(&self, cpu: usize) {
        self.threads.lock().unwrap()[cpu] = Some(thread::current());
    }

    /// Returns `true` if the vCPU was kicked since the last call.
    pub(crate) fn take(&self, cpu: usize) -> bool {
        self.flags[cpu].swap(false, SeqCst)
    }

    /// Sleeps until the vCPU is kicked. A kick that the model forgets is not made up for, so the
    /// vCPU then sleeps until the end of the run.
    pub(crate) fn sleep(&self, cpu: usize, stop: &AtomicBool) {
        while !self.take(cpu) && !stop.load(SeqCst) {
            thread::park();
        }
    }

    /// Wakes all vCPUs, after the caller has set `stop`.
    pub(crate) fn wake_all(&self) {
        for thread in self.threads.lock().unwrap().iter().flatten() {
            thread.unpark();
        }
    }

    /// Returns the number of kicks.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }
}

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.count.fetch_add(1, SeqCst);
        self.flags[cpu.index()].store(true, SeqCst);
        if let Some(thread) = &self.threads.lock().unwrap()[cpu.index()] {
            thread.unpark();
        }
    }
}
