//! CPUs that all run on the caller's thread.

use super::PoweredMachine;
use crate::cpu::{CpuCore, Cpus, Work};
use crate::migration::Migrator;
use doorbell_hardware::platform::MachinePlatform;
use msi_types::Cpu;
use std::sync::Arc;

/// If migration is enabled, on average one in this many checks for interrupts is preceded by a
/// migration.
const LOOKS: usize = 8;

/// Maximum number of pieces of deferred work that a model can accumulate.
const PIECES: usize = 4096;

/// CPUs that take turns running on one thread.
pub(crate) struct SequentialCpus {
    cores: Vec<Arc<CpuCore>>,
    migrator: Option<Arc<Migrator>>,
}

impl SequentialCpus {
    /// Creates the CPUs for a machine that has just been powered on.
    pub(crate) fn new(powered: &PoweredMachine) -> Self {
        Self::of(powered.cores.clone(), powered.migrator.clone(), &powered.platform)
    }

    /// Wraps `cores`. If migration is enabled, the model may also migrate between any two accesses
    /// of `platform` from now on.
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

    /// Lets the CPUs take their pending interrupts and perform the model's deferred work until no
    /// work is left, as CPUs do before they sleep.
    ///
    /// # Panics
    /// Panics if a defect in the model keeps the CPUs from ever sleeping.
    pub(crate) fn settle(&self) {
        let sleeps = (0..PIECES).any(|_| {
            self.take_all();
            self.cores.iter().all(|core| core.may_idle())
        });
        assert!(sleeps, "the model still had work left after {PIECES} pieces");
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
    /// Returns an error if a migration failed; the error holds the reason for the first failure.
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
