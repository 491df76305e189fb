//! Local APICs, optionally with a remapping unit in front of them.

use crate::cell::{BoardConfig, Layer, Parent};
use crate::root::{Built, CPUS, Driven, Root, RootHardware, hyperv_functions};
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::hyperv::{HostMigration, HypervHost, INSTANCE};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use doorbell_hardware::x86::{Chipset, LocalApicBank, RemapTableMemory, RemappingUnit, X86Kernel};
use hyperv_vpci::guest::{ApicVectors, Vectors};
use hyperv_vpci::host::Injection;
use irq_domain::Interrupts;
use msi_types::{
    Cpu, Delivery, MsiMessage, MsiParent, NoIdentity, RequesterId, SignalMsi, Surroundings,
};
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};
use x86_irq::remapping::{ApicMode, RemapTableConfig, TableSize};
use x86_irq::{
    ApicId, RemapTable, RemappedVectors, RemappedVectorsConfig, VectorDomain, VectorDomainConfig,
};

/// Base address of the unit's registers. Error messages use it to identify the unit.
const UNIT: u64 = 0xfed9_0000;
/// log2 of the number of table entries (256).
const TABLE_LOG2: u8 = 8;

/// An x86 machine's hardware: the APICs, and the remapping unit in front of them, if any.
pub(crate) struct X86Hardware {
    chipset: Arc<Chipset>,
    /// The host end of a virtual bus.
    hyperv: Option<Arc<HypervHost>>,
    surroundings: Surroundings,
}

/// The path by which the hypervisor injects messages directly into the guest's local APICs.
struct Injected(Arc<Chipset>);

impl SignalMsi<NoIdentity> for Injected {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        self.0.signal_msi(RequesterId::default(), message)
    }
}

/// Returns the message for the local APIC of the CPU with VP index `processor`.
fn apic_message(processor: u16, vector: u8) -> MsiMessage {
    let id = u64::from(LocalApicBank::id(Cpu::new(processor.into())));
    MsiMessage { address: 0xfee0_0000 | id << 12, data: vector.into() }
}

impl X86Hardware {
    /// Creates the hardware. The hardware includes a remapping unit if the layer needs one.
    pub(crate) fn new(plan: &BoardConfig, ram: Arc<Ram>) -> Built<Self> {
        let remapping = (plan.layer == Layer::Remapping)
            .then(|| Arc::new(RemappingUnit::new(Arc::clone(&ram))));
        let apics = Arc::new(LocalApicBank::new(CPUS.into()));
        let chipset = Arc::new(Chipset { apics, remapping, ram });
        let signal = Arc::new(Injected(Arc::clone(&chipset)));
        let hyperv = (plan.parent == Parent::HypervApic)
            .then(|| {
                let injection = Injection::Apic { signal, message: apic_message };
                HypervHost::new(injection, CPUS, &hyperv_functions(), HostMigration::Never)
            })
            .transpose()?;
        Ok(Self { chipset, hyperv, surroundings: plan.surroundings() })
    }
}

impl RootHardware for X86Hardware {
    fn upstream(&self) -> Arc<dyn SignalMsi<RequesterId>> {
        match &self.hyperv {
            Some(host) => Arc::clone(host) as _,
            None => Arc::clone(&self.chipset) as _,
        }
    }

    fn claim(&self, _bus: &mut Bus) -> Result<(), Overlap> {
        Ok(())
    }

    fn drive(self: Box<Self>, platform: &Arc<MachinePlatform>) -> Built<Driven> {
        let Chipset { apics, remapping, ram } = &*self.chipset;
        let kernel = Arc::new(X86Kernel::new(Arc::clone(apics), Arc::clone(platform)));
        let cpus = NonZeroU16::new(CPUS).unwrap_or(NonZeroU16::MIN);
        let config = VectorDomainConfig::new(cpus, Arc::clone(&kernel) as _);
        let config = config.with_surroundings(self.surroundings, 0);
        let vectors = Arc::new(VectorDomain::new(config)?);
        for cpu in apics.cpus() {
            vectors.online(cpu, ApicId::new(LocalApicBank::id(cpu)))?;
        }
        let remapped = remapping.as_ref().map(|unit| remap(unit, ram, &vectors)).transpose()?;
        let parent: Arc<dyn MsiParent> = match (&self.hyperv, &remapped) {
            (Some(host), _) => host.open(
                platform,
                Vectors::Apic(ApicVectors::new(
                    Arc::clone(&vectors) as _,
                    Arc::clone(host) as _,
                    INSTANCE,
                )),
            )?,
            (None, Some(remapped)) => Arc::clone(remapped) as _,
            (None, None) => Arc::clone(&vectors) as _,
        };
        let free = apics.cpus().map(|cpu| vectors.available_on(cpu)).collect();
        let root = X86Root {
            apics: Arc::clone(apics),
            kernel,
            vectors,
            remapped,
            hyperv: self.hyperv,
            free,
            interrupts: OnceLock::new(),
        };
        Ok(Driven { root: Box::new(root), parent, wired: None })
    }
}

fn remap(
    unit: &Arc<RemappingUnit>,
    ram: &Arc<Ram>,
    vectors: &Arc<VectorDomain>,
) -> Built<Arc<RemappedVectors<RemapTableMemory>>> {
    let size = TableSize::from_log2(TABLE_LOG2).ok_or("invalid table size")?;
    let base = ram
        .allocate(size.bytes(), size.bytes().max(0x1000))
        .ok_or("out of memory for the table")?;
    let config = RemapTableConfig::new(size, ApicMode::Xapic);
    let table = RemapTable::new(config, RemapTableMemory::new(Arc::clone(ram), base));
    unit.set_table(table.address_register(base));
    let remapped = RemappedVectors::new(RemappedVectorsConfig::new(
        Arc::clone(vectors),
        table,
        Arc::clone(unit) as _,
        UNIT,
    ));
    Ok(Arc::new(remapped?))
}

struct X86Root {
    apics: Arc<LocalApicBank>,
    kernel: Arc<X86Kernel>,
    vectors: Arc<VectorDomain>,
    remapped: Option<Arc<RemappedVectors<RemapTableMemory>>>,
    hyperv: Option<Arc<HypervHost>>,
    /// Number of vectors that are initially free on each CPU.
    free: Vec<u32>,
    interrupts: OnceLock<Interrupts>,
}

impl X86Root {
    /// Lets the CPU take an interrupt and clean up former vectors. Returns `true` if it did either.
    fn run(&self, cpu: Cpu) -> bool {
        let Some(interrupts) = self.interrupts.get() else { return false };
        let took = self.kernel.take_one(&self.vectors, interrupts, cpu);
        self.kernel.clean_up(&self.vectors, cpu) || took
    }
}

impl Root for X86Root {
    fn serve(&self, interrupts: &Interrupts) {
        // Each board has only one interrupt core, so the cell is set only once.
        let _ = self.interrupts.set(interrupts.clone());
    }

    fn settle(&self) {
        while self.apics.cpus().any(|cpu| self.run(cpu)) {}
    }

    fn strays(&self) -> u64 {
        self.kernel.strays() + self.apics.refused()
    }

    fn kept(&self) -> Option<String> {
        if let Some(kept) = self.hyperv.as_ref().and_then(|host| host.kept()) {
            return Some(kept);
        }
        let slots = self.vectors.hwirqs_in_use();
        let entries = self.remapped.as_ref().map_or(0, |remapped| remapped.entries_in_use());
        let free: Vec<_> = self.apics.cpus().map(|cpu| self.vectors.available_on(cpu)).collect();
        (slots != 0 || entries != 0 || free != self.free).then(|| {
            format!(
                "{slots} slots, {entries} table entries, {free:?} of {:?} vectors free",
                self.free
            )
        })
    }

    fn silent_fault(&self) -> Option<String> {
        None
    }
}
