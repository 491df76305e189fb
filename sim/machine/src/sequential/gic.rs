//! A GIC and its CPUs, without firmware, devices or drivers.

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
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vgic::saved_state::SavedState;
use vgic::{ConfigError, Vcpu, VgicConfig};

/// The GIC of a machine that is not yet switched on.
pub struct GicHardware {
    model: Arc<GicModel>,
    vcpus: Vec<Vcpu>,
    ram: Arc<Ram>,
}

impl GicHardware {
    /// A GIC whose tables are in `ram`.
    ///
    /// # Errors
    /// No GIC is like that.
    pub fn new(config: VgicConfig, ram: Arc<Ram>) -> Result<Self, ConfigError> {
        let (model, vcpus) = GicModel::new(config, Arc::clone(&ram), Arc::new(NoKick))?;
        Ok(Self { model, vcpus, ram })
    }

    /// The configuration.
    pub fn config(&self) -> &VgicConfig {
        self.model.config()
    }

    /// The targets of devices' writes: doorbells, the GIC's registers, RAM.
    pub fn doorbells(&self) -> Doorbells {
        gic::doorbells(&self.model, &self.ram)
    }

    /// The wired inputs.
    pub fn lines(&self) -> Arc<dyn SetLine> {
        Arc::clone(&self.model) as _
    }

    /// Lets the registers answer on `bus`.
    ///
    /// # Errors
    /// Something else answers there.
    pub fn attach(&self, bus: &mut Bus) -> Result<(), Overlap> {
        gic::attach(&self.model, bus)
    }

    /// Powers the CPUs on. If the GIC migrates, it does so from now on between any two accesses of
    /// `platform`, and whenever a CPU looks for interrupts.
    pub fn power_on(self, migration: Migration, platform: &MachinePlatform) -> GicCpus {
        let records = CpuRecords::new(self.vcpus.len());
        let vcpus = self.vcpus.into_iter().zip(0..);
        let core = |(vcpu, cpu)| CpuCore::new(Cpu::new(cpu), vcpu, &records);
        let cores: Vec<_> = vcpus.map(core).map(Arc::new).collect();
        let migrator = Migrator::new(migration, &self.model, &cores, None);
        let cpus = SequentialCpus::of(cores, migrator, platform);
        GicCpus { model: self.model, cpus, records }
    }
}

impl fmt::Debug for GicHardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GicHardware").field("model", &self.model).finish_non_exhaustive()
    }
}

/// The CPUs of a [`GicHardware`], powered on.
pub struct GicCpus {
    model: Arc<GicModel>,
    cpus: SequentialCpus,
    records: CpuRecords,
}

impl GicCpus {
    /// `cpu` executes `code` with its interrupts masked; `None` if there is no such CPU.
    pub fn execute<R>(&self, cpu: Cpu, code: impl FnOnce(&CpuRegisters<'_>) -> R) -> Option<R> {
        let cpu = self.cpus.cores().get(cpu.index())?;
        Some(cpu.execute(|_, registers| code(registers)))
    }

    /// The CPUs' interrupts are dispatched by `interrupts` from now on.
    pub fn serve(&self, interrupts: &Interrupts) {
        self.cpus.cores().iter().for_each(|core| core.serve(interrupts));
    }

    /// The CPUs take what is pending, until nothing is and all may sleep.
    ///
    /// # Panics
    /// The model keeps them from sleeping for good: a defect of the model.
    pub fn settle(&self) {
        self.cpus.settle();
    }

    /// Interrupts that found no handler.
    pub fn unhandled(&self) -> u64 {
        let unhandled = &self.records.unhandled;
        unhandled.spurious.load(Ordering::Relaxed) + unhandled.late.load(Ordering::Relaxed)
    }

    /// Returns the number of migrations.
    ///
    /// # Errors
    /// The reason for which the first one failed that did.
    pub fn migrated(&self) -> Result<u64, String> {
        self.cpus.migrated()
    }

    /// Migrations restore what `change` makes of the saved state from now on: a test of whether
    /// spoiled states are noticed.
    ///
    /// # Panics
    /// There is such a change already.
    pub fn change_saved_states(
        &self,
        change: impl Fn(SavedState) -> SavedState + Send + Sync + 'static,
    ) {
        self.model.tamper(Box::new(change));
    }
}

impl fmt::Debug for GicCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GicCpus").field("model", &self.model).finish_non_exhaustive()
    }
}
