//! Where CPUs sleep, and who wakes them.

use doorbell_hardware::lock::lock;
use msi_types::{Cpu, Kick};
use std::sync::{Condvar, Mutex, PoisonError};

/// A bed for each CPU.
#[derive(Debug)]
pub(crate) struct Sleepers {
    beds: Box<[Bed]>,
}

#[derive(Debug, Default)]
struct Bed {
    /// Somebody wants something of the CPU.
    called: Mutex<bool>,
    bell: Condvar,
}

impl Sleepers {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { beds: (0..cpus).map(|_| Bed::default()).collect() }
    }

    /// Sleeps until `cpu` is called, or was since the last time.
    pub(crate) fn sleep(&self, cpu: Cpu) {
        let Some(bed) = self.beds.get(cpu.index()) else { return };
        let mut called = lock(&bed.called);
        while !*called {
            called = bed.bell.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
        *called = false;
    }

    /// Was `cpu` called since the last time?
    pub(crate) fn answer(&self, cpu: Cpu) -> bool {
        self.beds.get(cpu.index()).is_some_and(|bed| std::mem::take(&mut *lock(&bed.called)))
    }

    /// Calls `cpu`.
    pub(crate) fn call(&self, cpu: Cpu) {
        if let Some(bed) = self.beds.get(cpu.index()) {
            *lock(&bed.called) = true;
            bed.bell.notify_one();
        }
    }
}

impl Kick for Sleepers {
    fn kick(&self, cpu: Cpu) {
        self.call(cpu);
    }
}
