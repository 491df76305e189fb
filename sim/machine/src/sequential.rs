//! A GIC and its CPUs, with no firmware, devices or drivers, on which tests run their own. The CPUs
//! take interrupts on the caller's thread, and only when the caller asks them to.

pub use crate::cpu::CpuRegisters;

use crate::cpu::{CpuCore, CpuRecords, Cpus, UnhandledCounts, Work};
use crate::machine::{BuildOptions, Refusal, gic};
use crate::migration::{Migration, Migrator};
use crate::model::GicModel;
use doorbell_hardware::bus::{Bus, Doorbells, Overlap};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use gic_bringup::{Irqchip, MsiController};
use gic_firmware::Description;
use irq_domain::Interrupts;
use msi_types::{Cpu, SetLine};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vgic::{ConfigError, Vcpu, VgicConfig};

/// If migration is enabled, on average one in this many checks for interrupts is preceded by a
/// migration.
const LOOKS: usize = 8;

/// Maximum number of pieces of deferred work that a model can accumulate.
const PIECES: usize = 4096;

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
        // The CPUs poll for interrupts.
        let (model, vcpus) = GicModel::new(config, Arc::clone(&ram), Arc::new(|_| ()))?;
        Ok(Self { model, vcpus, ram })
    }

    /// Creates the GIC that `description` describes.
    ///
    /// # Errors
    /// Returns an error if the description has no usable GIC or no controller.
    pub fn described(
        description: &Description,
        options: &BuildOptions,
        ram: Arc<Ram>,
    ) -> Result<Self, Refusal> {
        Ok(Self::new(gic::plan(description, options)?.config, ram)?)
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
        GicCpus::new(cores, migrator, records.unhandled, platform)
    }
}

msi_types::debug_by!(GicHardware as "GicHardware", |it| {model: it.model});

/// Powered-on CPUs, which take turns running on the caller's thread.
pub struct GicCpus {
    cores: Vec<Arc<CpuCore>>,
    migrator: Option<Arc<Migrator>>,
    unhandled: Arc<UnhandledCounts>,
}

impl GicCpus {
    /// Wraps `cores`. If migration is enabled, the model may also migrate between any two accesses
    /// of `platform` from now on.
    pub(crate) fn new(
        cores: Vec<Arc<CpuCore>>,
        migrator: Option<Arc<Migrator>>,
        unhandled: Arc<UnhandledCounts>,
        platform: &MachinePlatform,
    ) -> Self {
        if let Some(migrator) = &migrator {
            platform.interleave_by(Arc::clone(migrator) as _);
        }
        Self { cores, migrator, unhandled }
    }

    /// Executes `code` on `cpu` with interrupts masked. Returns `None` if the CPU does not exist.
    pub fn execute<R>(&self, cpu: Cpu, code: impl FnOnce(&CpuRegisters<'_>) -> R) -> Option<R> {
        let cpu = self.cores.get(cpu.index())?;
        Some(cpu.execute(|_, registers| code(registers)))
    }

    /// Makes the CPUs dispatch their interrupts through `interrupts` from now on.
    pub fn serve(&self, interrupts: &Interrupts) {
        self.cores.iter().for_each(|core| core.serve(interrupts));
    }

    /// Lets the CPUs take their pending interrupts and perform the model's deferred work until no
    /// work is left, as CPUs do before they sleep.
    ///
    /// # Panics
    /// Panics if a defect in the model keeps the CPUs from ever sleeping.
    pub fn settle(&self) {
        let sleeps = (0..PIECES).any(|_| {
            self.take_all();
            self.cores.iter().all(|core| core.may_idle())
        });
        assert!(sleeps, "the model still had work left after {PIECES} pieces");
    }

    /// Lets the CPUs take at most this number of interrupts. Returns `false` if more are pending.
    pub fn take(&self, most: usize) -> bool {
        !(0..=most).all(|_| self.cores.iter().any(|core| core.take_one()))
    }

    fn take_all(&self) {
        while {
            self.migrator.iter().for_each(|migrator| _ = migrator.perhaps(LOOKS));
            self.cores.iter().any(|core| core.take_one())
        } {}
    }

    /// Returns the number of interrupts that arrived without a handler.
    pub fn unhandled(&self) -> u64 {
        let UnhandledCounts { spurious, late, .. } = &*self.unhandled;
        spurious.load(Ordering::Relaxed) + late.load(Ordering::Relaxed)
    }

    /// Returns the number of migrations.
    ///
    /// # Errors
    /// Returns an error if a migration failed; the error holds the reason for the first failure.
    pub fn migrated(&self) -> Result<u64, String> {
        self.migrator.as_ref().map_or(Ok(0), |migrator| migrator.moved())
    }
}

impl Cpus for GicCpus {
    fn count(&self) -> usize {
        self.cores.len()
    }

    fn run_on(&self, cpu: Cpu, work: Work) {
        if let Some(core) = self.cores.get(cpu.index()) {
            work(core);
        }
    }
}

msi_types::debug_by!(GicCpus as "GicCpus", |it| {count: it.cores.len()});

/// Returns a fault that the drivers of these controllers could not report in any other way, or
/// `None`.
pub fn silent_fault(irqchip: &Irqchip<MachinePlatform>) -> Option<String> {
    irqchip.controllers().find_map(|(_, driver)| match driver {
        MsiController::Its(its) => match its.faults() {
            (0, _) => None,
            (count, Some(last)) => Some(format!("{last} ({count} such faults)")),
            (count, None) => Some(format!("its@{:x}: {count} faults", its.base())),
        },
        MsiController::DirectLpi(direct_lpi) => {
            direct_lpi.take_fault().map(|fault| fault.to_string())
        }
        _ => None,
    })
}
