//! The machine, discovered and brought up: what a kernel does with Doorbell at its start.

use crate::controller::{Controller, registers};
use crate::devicetree::Surroundings;
use crate::ledger::{self, Ledger};
use crate::pci::{self, Function};
use crate::platform::Kernel;
use crate::readme;
use crate::smmu::{Behind, Smmu, SmmuDescription};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use gic_arch::Affinity;
use gic_driver::its::{IdMap, IdRange};
use gic_driver::{
    Coherence, Gic, GicConfig, GicV2, GicV2Config, Its, ItsConfig, ItsMsiParent, PhysicalRegion, Platform,
    RedistributorRegion, TableAccess, V2m, V2mFrame,
};
use gic_firmware::{
    ConfigSpace, Controller as MsiController, ControllerKind, Description, GicVersion, PciHost,
};
use image_rt::{cpu, exceptions};
use irq_domain::layer::{DoorbellMapping, Over};
use irq_domain::{Config, Dispatched, Interrupts, Start, WiredRequest};
use msi_types::{Cpu, MsiParent, Trigger, Vector};
use spin::Once;

/// Everything that was found.
pub(crate) struct Machine {
    pub(crate) description: Description,
    pub(crate) gic: Controller,
    /// By CPU.
    affinities: Vec<Affinity>,
    /// The README's kernel, which brought the machine up, if it has an ITS.
    pub(crate) readme: Option<readme::Kernel<Kernel>>,
    pub(crate) its: Option<Arc<Its<Kernel>>>,
    /// Cost of bringing the ITS up.
    pub(crate) its_cost: Ledger,
    /// Parent of the PCI host's messages: the controller, or the layer before it.
    pub(crate) parent: Option<Arc<dyn MsiParent>>,
    /// Parent of a CPU's own messages: no layer between PCI and the controller is in their way.
    pub(crate) controller: Option<Arc<dyn MsiParent>>,
    pub(crate) smmu: Option<Translated>,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) functions: Vec<Function>,
}

/// PCI behind an SMMU.
pub(crate) struct Translated {
    pub(crate) smmu: Arc<Smmu>,
    /// The layer that maps doorbells.
    pub(crate) doorbells: Arc<Over<DoorbellMapping<Behind>, dyn MsiParent>>,
}

static MACHINE: Once<Machine> = Once::new();

/// Acknowledged interrupts for which there was no handler, and the last of them.
pub(crate) static UNHANDLED: AtomicU64 = AtomicU64::new(0);
pub(crate) static LAST_UNHANDLED: AtomicU32 = AtomicU32::new(0);

/// The machine. After [`bring_up`].
pub(crate) fn machine() -> &'static Machine {
    MACHINE.get().unwrap_or_else(|| panic!("the machine was not brought up"))
}

/// Discovers the machine, starts the boot CPU's interrupts, and finds the PCI functions.
pub(crate) fn bring_up(
    description: Description,
    around: &Surroundings,
    smmu: Option<SmmuDescription>,
) -> &'static Machine {
    let affinities = cpus(&description);
    let readme = with_its(&description);
    let (gic, interrupts) = match &readme {
        Some(kernel) => (Controller::V3(kernel.gic.clone()), kernel.interrupts.clone()),
        None => without_its(&description),
    };
    let its = readme.as_ref().map(|kernel| kernel.its.clone());
    let its_cost = Ledger::now();
    let host = description.hosts.first();
    let controller = match (&its, host) {
        (Some(its), Some(host)) => {
            Some(Arc::new(ItsMsiParent::new(its.clone(), id_map(&description, host))) as Arc<dyn MsiParent>)
        }
        _ => v2m(&gic, &description),
    };
    let functions = host.map_or_else(Vec::new, |host| functions(host, around));
    let smmu = smmu.map(|smmu| Arc::new(Smmu::new(smmu).expect("the SMMU")));
    if let Some(smmu) = &smmu {
        attach(smmu, around, &functions);
    }
    let smmu = smmu.zip(controller.clone()).map(|(smmu, below)| translated(smmu, below, &interrupts));
    let parent = match &smmu {
        Some(smmu) => Some(smmu.doorbells.clone() as Arc<dyn MsiParent>),
        None => controller.clone(),
    };
    let found = Machine {
        description,
        gic,
        affinities,
        readme,
        its,
        its_cost,
        parent,
        controller,
        smmu,
        interrupts,
        functions,
    };
    MACHINE.call_once(|| found);
    exceptions::set_irq_handler(take_interrupts);
    cpu::irq_enable();
    machine()
}

/// The trap loop: everything that is pending, one after the other.
fn take_interrupts() {
    let machine = machine();
    let here = Platform::cpu(&Kernel);
    machine.gic.take_all(|intid| {
        let vector = intid.vector();
        if let Dispatched::Unhandled(_) = machine.interrupts.dispatch(here, vector) {
            UNHANDLED.fetch_add(1, Ordering::Relaxed);
            LAST_UNHANDLED.store(vector.get(), Ordering::Relaxed);
        }
    });
}

impl Machine {
    /// All CPUs, on or off.
    pub(crate) fn cpus(&self) -> impl Iterator<Item = Cpu> + use<> {
        (0..self.affinities.len() as u32).map(Cpu::new)
    }

    /// Its number at firmware and at a GICv3.
    pub(crate) fn affinity(&self, cpu: Cpu) -> Option<Affinity> {
        self.affinities.get(cpu.index()).copied()
    }

    /// CPUs as [`Controller::send`] takes them.
    pub(crate) fn targets(&self, cpus: &[Cpu]) -> Vec<(Cpu, Affinity)> {
        cpus.iter().filter_map(|cpu| Some((*cpu, self.affinity(*cpu)?))).collect()
    }
}

/// The CPUs that firmware enables, in its order: the boot CPU is the first.
fn cpus(description: &Description) -> Vec<Affinity> {
    description.enabled_cpus().map(|cpu| cpu.affinity.value).take(cpu::MAX_CPUS).collect()
}

/// The ITS that firmware enables.
pub(crate) fn its_controller(
    description: &Description,
) -> Option<(gic_firmware::ControllerIndex, &MsiController)> {
    description
        .indexed_controllers()
        .find(|(_, controller)| controller.kind == ControllerKind::Its && controller.status.is_enabled())
}

/// A GICv3 with the ITS that firmware enables: brought up as the project's README does. `None` if there is none.
fn with_its(description: &Description) -> Option<readme::Kernel<Kernel>> {
    let firmware = described(description);
    let (_, controller) = its_controller(description).filter(|_| firmware.version.value != GicVersion::V2)?;
    let base = controller.registers.as_ref().expect("an ITS has registers").base();
    let config = ItsConfig {
        machine: description.quirk_names().map(Into::into).collect(),
        coherence: match controller.coherence.value {
            gic_firmware::Coherence::ByRegister => Coherence::Coherent,
            gic_firmware::Coherence::NonCoherent => Coherence::NonCoherent,
        },
        ..ItsConfig::new(base, cpus(description).len() as u32)
    };
    ledger::watch(base, u64::from(config.queue_bytes / 32));
    let (platform, host) = (Arc::new(Kernel), Arc::new(Kernel));
    let gic = gic_config(firmware, description);
    let kernel = readme::Kernel::bring_up(platform, host, &registers(), gic, &config);
    Some(kernel.expect("the GIC and the ITS"))
}

/// A GIC alone, with the boot CPU's interface.
fn without_its(description: &Description) -> (Controller, Arc<Interrupts>) {
    let firmware = described(description);
    let gic = if firmware.version.value == GicVersion::V2 {
        let interface = firmware.cpu_interface.as_ref().expect("a GICv2 has CPU interfaces").base();
        let config = GicV2Config::new(firmware.distributor.base(), interface, cpus(description).len());
        Controller::V2(Arc::new(GicV2::new(Arc::new(Kernel), config).expect("the GICv2")))
    } else {
        let config = gic_config(firmware, description);
        Controller::V3(Arc::new(Gic::new(Arc::new(Kernel), config).expect("the GIC")))
    };
    let count = NonZeroU16::new(cpus(description).len() as u16).expect("a CPU runs this");
    let interrupts = Interrupts::new(Config::new(count, Arc::new(Kernel)).with_wired(gic.wired()));
    let interrupts = Arc::new(interrupts.expect("memory for the interrupt core"));
    gic.cpu_on(Platform::cpu(&Kernel)).expect("the boot CPU's interface");
    (gic, interrupts)
}

fn described(description: &Description) -> &gic_firmware::Gic {
    description.gic.as_ref().expect("firmware describes a GIC")
}

fn gic_config(firmware: &gic_firmware::Gic, description: &Description) -> GicConfig {
    let regions = firmware.redistributors.iter().map(|region| RedistributorRegion {
        region: PhysicalRegion { base: region.base(), bytes: region.size() },
        stride: firmware.redistributor_stride.as_ref().map(|stride| stride.value),
    });
    GicConfig {
        machine: description.quirk_names().map(Into::into).collect(),
        table_access: match firmware.coherence.value {
            gic_firmware::Coherence::ByRegister => TableAccess::Negotiate,
            gic_firmware::Coherence::NonCoherent => TableAccess::NonCoherent,
        },
        ..GicConfig::new(firmware.distributor.base(), regions.collect(), cpus(description))
    }
}

/// The frames that firmware enables.
pub(crate) fn v2m_frames(description: &Description) -> impl Iterator<Item = V2mFrame<'static>> {
    let enabled = |controller: &&MsiController| {
        controller.kind == ControllerKind::V2m && controller.status.is_enabled()
    };
    description.indexed_controllers().map(|(_, controller)| controller).filter(enabled).map(|controller| {
        let stated = controller.ranges.first().map(|range| range.value);
        V2mFrame {
            first_spi: stated.map(|span| span.first().get()),
            spi_count: stated.map(gic_firmware::IntIdSpan::count),
            ..V2mFrame::new(controller.registers.as_ref().expect("a frame has registers").base())
        }
    })
}

fn v2m(gic: &Controller, description: &Description) -> Option<Arc<dyn MsiParent>> {
    let frames: Vec<_> = v2m_frames(description).collect();
    (!frames.is_empty())
        .then(|| Arc::new(V2m::new(Arc::new(Kernel), gic.wired(), &frames).expect("the frames' SPIs")) as _)
}

/// Builds the requester map that firmware gives the host at the ITS.
fn id_map(description: &Description, host: &PciHost) -> IdMap {
    let its = its_controller(description).map(|(index, _)| index);
    let spans = description.host_spans(host);
    let ranges = spans.iter().filter(|span| Some(span.controller) == its).map(|span| IdRange {
        first_requester: span.rid_base,
        length: span.length,
        first_device: span.device_id_base,
    });
    let map = IdMap::new(ranges.collect());
    match &host.msi.mask {
        Some(mask) => map.with_mask(mask.value),
        None => map,
    }
}

/// An address space for every function.
fn attach(smmu: &Smmu, around: &Surroundings, functions: &[Function]) {
    let memory = around.memory.start as u64..around.memory.end as u64;
    for stream in functions.iter().filter_map(|function| smmu.stream(function.requester)) {
        smmu.attach(stream, memory.clone()).expect("a stream's address space");
    }
}

/// A layer that maps doorbells at the SMMU, and somebody who hears of its events.
fn translated(smmu: Arc<Smmu>, below: Arc<dyn MsiParent>, interrupts: &Arc<Interrupts>) -> Translated {
    let (vector, reader) = (Vector::new(smmu.event_spi()), smmu.clone());
    let request = WiredRequest { vector, trigger: Trigger::Edge, name: "smmu", start: Start::Enabled };
    let handle = interrupts.request_wired(request, move |_| reader.take_events());
    // For ever: the SMMU is never given back.
    core::mem::forget(handle.expect("the SMMU's event interrupt"));
    let layer = DoorbellMapping::new(Behind(smmu.clone()), Arc::new(Kernel));
    Translated { smmu, doorbells: Arc::new(Over::new(layer, below, Arc::new(Kernel))) }
}

fn functions(host: &PciHost, around: &Surroundings) -> Vec<Function> {
    match (host.config.as_ref().map(|config| config.value), &around.pci_window) {
        (Some(ConfigSpace::Ecam(ecam)), Some(window)) => pci::enumerate(ecam, window.clone()),
        _ => Vec::new(),
    }
}
