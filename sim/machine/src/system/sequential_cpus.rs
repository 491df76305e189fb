//! CPUs that do everything on the caller's thread.

use super::PoweredMachine;
use crate::cpu::{CpuCore, Cpus, Work};
use crate::migration::Migrator;
use doorbell_hardware::platform::MachinePlatform;
use msi_types::Cpu;
use std::sync::Arc;

/// A model that moves does so once in so many times before a CPU looks for interrupts.
const LOOKS: usize = 8;

/// More pieces than the model leaves over of what was asked for at once.
const PIECES: usize = 4096;

/// CPUs of which one does something at a time.
pub(crate) struct SequentialCpus {
    cores: Vec<Arc<CpuCore>>,
    migrator: Option<Arc<Migrator>>,
}

impl SequentialCpus {
    /// The CPUs of a machine that has just been powered on.
    pub(crate) fn new(powered: &PoweredMachine) -> Self {
        Self::of(powered.cores.clone(), powered.migrator.clone(), &powered.platform)
    }

    /// These CPUs. If their model moves, it does so from now on also between any two accesses of
    /// `platform`.
    pub(crate) fn of(
        cores: Vec<Arc<CpuCore>>,
        migrator: Option<Arc<Migrator>>,
        platform: &MachinePlatform,
    ) -> Self {
        if let Some(migrator) = &migrator {
            platform.interleave_by(Arc::clone(migrator) as _);
        }
        Self { cores, migrator }
    }

    /// They take what is pending, until nothing is, and do what the model left over, as CPUs that
    /// want to sleep do.
    ///
    /// # Panics
    /// The model keeps them from sleeping for good.
    pub(crate) fn settle(&self) {
        let sleeps = (0..PIECES).any(|_| {
            self.take_all();
            self.cores.iter().all(|core| core.may_idle())
        });
        assert!(sleeps, "the model had work left over {PIECES} times");
    }

    fn take_all(&self) {
        while {
            self.perhaps_migrate();
            self.cores.iter().any(|core| core.take_one())
        } {}
    }

    fn perhaps_migrate(&self) {
        if let Some(migrator) = &self.migrator {
            migrator.perhaps(LOOKS);
        }
    }

    pub(crate) fn cores(&self) -> &[Arc<CpuCore>] {
        &self.cores
    }

    /// Returns the number of migrations.
    ///
    /// # Errors
    /// Why it could not be, once.
    pub(crate) fn migrated(&self) -> Result<u64, String> {
        self.migrator.as_ref().map_or(Ok(0), |migrator| migrator.moved())
    }
}

impl Cpus for SequentialCpus {
    fn count(&self) -> usize {
        self.cores.len()
    }

    fn run_on(&self, cpu: Cpu, work: Work) {
        if let Some(core) = self.cores.get(cpu.index()) {
            work(core);
        }
    }
}
