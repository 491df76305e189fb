//! Local APICs, optionally with a remapping unit in front of them.

use super::board::{Built, CPUS, Driven, Root};
use super::cell::{BoardConfig, Layer};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use doorbell_hardware::x86::{Chipset, LocalApicBank, RemapTableMemory, RemappingUnit, X86Kernel};
use irq_domain::{Config, Interrupts};
use msi_types::{Cpu, MsiParent};
use std::num::NonZeroU16;
use std::sync::Arc;
use x86_irq::remapping::{ApicMode, RemapTableConfig, TableSize};
use x86_irq::{
    ApicId, RemapTable, RemappedVectors, RemappedVectorsConfig, VectorDomain, VectorDomainConfig,
};

/// Base address of the unit's registers. Error messages use it to identify the unit.
const UNIT: u64 = 0xfed9_0000;
/// log2 of the number of table entries (256).
const TABLE_LOG2: u8 = 8;

/// Creates the APICs, with a remapping unit if the layer needs one.
pub(super) fn hardware(plan: &BoardConfig, ram: &Arc<Ram>) -> Arc<Chipset> {
    let remapping =
        (plan.layer == Layer::Remapping).then(|| Arc::new(RemappingUnit::new(Arc::clone(ram))));
    let apics = Arc::new(LocalApicBank::new(CPUS.into()));
    Arc::new(Chipset { apics, remapping, ram: Arc::clone(ram) })
}

/// Brings up the vector domain on all CPUs, and the layer above it.
pub(super) fn drive(
    plan: &BoardConfig,
    chipset: &Arc<Chipset>,
    platform: &Arc<MachinePlatform>,
) -> Built<Driven> {
    let Chipset { apics, remapping, ram } = &**chipset;
    let kernel = Arc::new(X86Kernel::new(Arc::clone(apics), Arc::clone(platform)));
    let cpus = NonZeroU16::new(CPUS).ok_or("no CPUs")?;
    let config = VectorDomainConfig::new(cpus, Arc::clone(&kernel) as _);
    // The domain is told its surroundings itself.
    let config = config.with_surroundings(plan.surroundings(), 0);
    let vectors = Arc::new(VectorDomain::new(config)?);
    let interrupts = Interrupts::new(Config::new(cpus, Arc::clone(platform) as _))?;
    for cpu in apics.cpus() {
        vectors.online(cpu, ApicId::new(LocalApicBank::id(cpu)))?;
        interrupts.cpu_online(cpu, |_| {})?;
    }
    let remapped = remapping.as_ref().map(|unit| remap(unit, ram, &vectors)).transpose()?;
    let parent: Arc<dyn MsiParent> = match &remapped {
        Some(remapped) => Arc::clone(remapped) as _,
        None => Arc::clone(&vectors) as _,
    };
    let free = apics.cpus().map(|cpu| vectors.available_on(cpu)).collect();
    let (apics, served) = (Arc::clone(apics), interrupts.clone());
    let root = X86Root { apics, kernel, vectors, remapped, free, interrupts: served };
    Ok(Driven { root: Box::new(root), parent, interrupts })
}

fn remap(
    unit: &Arc<RemappingUnit>,
    ram: &Arc<Ram>,
    vectors: &Arc<VectorDomain>,
) -> Built<Arc<RemappedVectors<RemapTableMemory>>> {
    let size = TableSize::from_log2(TABLE_LOG2).ok_or("invalid table size")?;
    let base = ram.allocate(size.bytes(), size.bytes().max(0x1000)).ok_or("out of memory")?;
    let config = RemapTableConfig::new(size, ApicMode::Xapic);
    let table = RemapTable::new(config, RemapTableMemory::new(Arc::clone(ram), base));
    unit.set_table(table.address_register(base));
    let (vectors, cache) = (Arc::clone(vectors), Arc::clone(unit) as _);
    let remapped = RemappedVectors::new(RemappedVectorsConfig::new(vectors, table, cache, UNIT));
    Ok(Arc::new(remapped?))
}

struct X86Root {
    apics: Arc<LocalApicBank>,
    kernel: Arc<X86Kernel>,
    vectors: Arc<VectorDomain>,
    remapped: Option<Arc<RemappedVectors<RemapTableMemory>>>,
    /// Number of vectors that are initially free on each CPU.
    free: Vec<u32>,
    interrupts: Interrupts,
}

impl X86Root {
    /// Lets the CPU take an interrupt and clean up former vectors. Returns `true` if it did either.
    fn run(&self, cpu: Cpu) -> bool {
        let took = self.kernel.take_one(&self.vectors, &self.interrupts, cpu);
        self.kernel.clean_up(&self.vectors, cpu) || took
    }
}

impl Root for X86Root {
    fn settle(&self) {
        while self.apics.cpus().any(|cpu| self.run(cpu)) {}
    }

    fn strays(&self) -> u64 {
        self.kernel.strays() + self.apics.refused()
    }

    fn kept(&self) -> Option<String> {
        let slots = self.vectors.hwirqs_in_use();
        let entries = self.remapped.as_ref().map_or(0, |remapped| remapped.entries_in_use());
        let free: Vec<_> = self.apics.cpus().map(|cpu| self.vectors.available_on(cpu)).collect();
        let kept = slots != 0 || entries != 0 || free != self.free;
        kept.then(|| format!("{slots} slots, {entries} table entries, {free:?} vectors free"))
    }
}
