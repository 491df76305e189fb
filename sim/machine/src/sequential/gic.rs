//! A GIC and its CPUs, with no firmware, devices or drivers.

use crate::cpu::{CpuCore, CpuRecords, CpuRegisters, NoKick};
use crate::machine::gic;
use crate::migration::{Migration, Migrator};
use crate::model::GicModel;
use crate::system::SequentialCpus;
use doorbell_hardware::bus::{Bus, Doorbells, Overlap};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use irq_domain::Interrupts;
use msi_types::{Cpu, SetLine};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vgic::{ConfigError, Vcpu, VgicConfig};

/// The GIC of a machine that is not yet powered on.
pub struct GicHardware {
    model: Arc<GicModel>,
    vcpus: Vec<Vcpu>,
    ram: Arc<Ram>,
}

impl GicHardware {
    /// Creates a GIC whose tables are in `ram`.
    ///
    /// # Errors
    /// Returns an error if the model cannot implement this configuration.
    pub fn new(config: VgicConfig, ram: Arc<Ram>) -> Result<Self, ConfigError> {
        let (model, vcpus) = GicModel::new(config, Arc::clone(&ram), Arc::new(NoKick))?;
        Ok(Self { model, vcpus, ram })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &VgicConfig {
        self.model.config()
    }

    /// Returns the targets of device writes: doorbells, GIC registers and RAM.
    pub fn doorbells(&self) -> Doorbells {
        gic::doorbells(&self.model, &self.ram, None)
    }

    /// Returns the GIC's wired inputs.
    pub fn lines(&self) -> Arc<dyn SetLine> {
        Arc::clone(&self.model) as _
    }

    /// Attaches the GIC's registers to `bus`.
    ///
    /// # Errors
    /// Returns an error if another device claims some of the GIC's addresses.
    pub fn attach(&self, bus: &mut Bus) -> Result<(), Overlap> {
        gic::attach(&self.model, None, bus)
    }

    /// Powers on the CPUs. If migration is enabled, the GIC may migrate from now on between any two
    /// accesses of `platform`, and whenever a CPU looks for interrupts.
    pub fn power_on(self, migration: Migration, platform: &MachinePlatform) -> GicCpus {
        let records = CpuRecords::new(self.vcpus.len());
        let vcpus = self.vcpus.into_iter().zip(0..);
        let core = |(vcpu, cpu)| CpuCore::new(Cpu::new(cpu), vcpu, &records);
        let cores: Vec<_> = vcpus.map(core).map(Arc::new).collect();
        let migrator = Migrator::new(migration, &self.model, &cores, None, None);
        let cpus = SequentialCpus::of(cores, migrator, platform);
        GicCpus { model: self.model, cpus, records }
    }
}

msi_types::debug_by!(GicHardware as "GicHardware", |it| {model: it.model});

/// The CPUs of a powered-on [`GicHardware`].
pub struct GicCpus {
    model: Arc<GicModel>,
    cpus: SequentialCpus,
    records: CpuRecords,
}

impl GicCpus {
    /// Executes `code` on `cpu` with interrupts masked. Returns `None` if the CPU does not exist.
    pub fn execute<R>(&self, cpu: Cpu, code: impl FnOnce(&CpuRegisters<'_>) -> R) -> Option<R> {
        let cpu = self.cpus.cores().get(cpu.index())?;
        Some(cpu.execute(|_, registers| code(registers)))
    }

    /// Makes the CPUs dispatch their interrupts through `interrupts` from now on.
    pub fn serve(&self, interrupts: &Interrupts) {
        self.cpus.cores().iter().for_each(|core| core.serve(interrupts));
    }

    /// Lets the CPUs take interrupts until none is pending and all CPUs may sleep.
    ///
    /// # Panics
    /// Panics if a defect in the model keeps the CPUs from ever sleeping.
    pub fn settle(&self) {
        self.cpus.settle();
    }

    /// Returns the number of interrupts that arrived without a handler.
    pub fn unhandled(&self) -> u64 {
        let unhandled = &self.records.unhandled;
        unhandled.spurious.load(Ordering::Relaxed) + unhandled.late.load(Ordering::Relaxed)
    }

    /// Returns the number of migrations.
    ///
    /// # Errors
    /// Returns an error if a migration failed; the error holds the reason for the first failure.
    pub fn migrated(&self) -> Result<u64, String> {
        self.cpus.migrated()
    }
}

msi_types::debug_by!(GicCpus as "GicCpus", |it| {model: it.model});
