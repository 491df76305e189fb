//! The machine, discovered and brought up: what a kernel does with Doorbell at its start.

use crate::devicetree::Surroundings;
use crate::ledger;
use crate::pci::{self, Function};
use crate::platform::Kernel;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use gic_driver::its::{IdMap, IdRange};
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{
    CpuInterface, Gic, GicConfig, Its, ItsConfig, ItsMsiParent, PhysicalRegion, Platform, RedistributorRegion,
};
use gic_firmware::{ConfigSpace, Controller, ControllerKind, Description, GicVersion, PciHost};
use image_rt::{cpu, exceptions};
use irq_domain::{Config, Dispatched, Interrupts};
use spin::Once;

/// Everything that was found.
pub(crate) struct Machine {
    pub(crate) description: Description,
    pub(crate) gic: Arc<Gic<Kernel>>,
    pub(crate) its: Option<Arc<Its<Kernel>>>,
    /// The PCI host's way to the ITS.
    pub(crate) parent: Option<Arc<ItsMsiParent<Kernel>>>,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) functions: Vec<Function>,
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
pub(crate) fn bring_up(description: Description, around: &Surroundings) -> &'static Machine {
    let gic = Arc::new(gic(&description));
    let boot = Platform::cpu(&Kernel);
    let interrupts = Interrupts::new(
        Config::new(
            NonZeroU16::new(cpus(&description).len() as u16).expect("a CPU runs this"),
            Arc::new(Kernel),
        )
        .with_wired(gic.clone()),
    );
    gic.cpu_on(boot, &registers()).expect("the boot CPU's interface");
    let its = its_controller(&description).map(|(_, controller)| its(&gic, controller, &description));
    if let Some(its) = &its {
        its.cpu_on(&gic.redistributor(boot).expect("a redistributor")).expect("the boot CPU's collection");
    }
    let host = description.hosts.first();
    let parent =
        its.clone().zip(host).map(|(its, host)| Arc::new(ItsMsiParent::new(its, id_map(&description, host))));
    let functions = host.map_or_else(Vec::new, |host| functions(host, around));
    MACHINE.call_once(|| Machine { description, gic, its, parent, interrupts, functions });
    exceptions::set_irq_handler(take_interrupts);
    cpu::irq_enable();
    machine()
}

/// The trap loop: everything that is pending, one after the other.
fn take_interrupts() {
    let machine = machine();
    let interface: CpuInterface<_> = machine.gic.cpu_interface(registers());
    let here = Platform::cpu(&Kernel);
    while let Some(interrupt) = interface.acknowledge() {
        let vector = interrupt.intid().vector();
        if let Dispatched::Unhandled(_) = machine.interrupts.dispatch(here, vector) {
            UNHANDLED.fetch_add(1, Ordering::Relaxed);
            LAST_UNHANDLED.store(vector.get(), Ordering::Relaxed);
        }
        interface.end(interrupt);
    }
}

/// The CPU interface's registers of the CPU that asks.
pub(crate) fn registers() -> CpuRegisters {
    // SAFETY: `virt`'s CPUs with a GICv3 have its system registers, the image runs at EL1 or EL2, and the monitor
    // traps nothing. The vectors handle interrupts.
    unsafe { CpuRegisters::new() }
}

/// The CPUs that firmware enables, in its order: the boot CPU is the first.
pub(crate) fn cpus(description: &Description) -> Vec<gic_arch::Affinity> {
    description.enabled_cpus().map(|cpu| cpu.affinity.value).take(cpu::MAX_CPUS).collect()
}

/// The ITS that firmware enables.
pub(crate) fn its_controller(
    description: &Description,
) -> Option<(gic_firmware::ControllerIndex, &Controller)> {
    description
        .indexed_controllers()
        .find(|(_, controller)| controller.kind == ControllerKind::Its && controller.status.is_enabled())
}

fn gic(description: &Description) -> Gic<Kernel> {
    let firmware = description.gic.as_ref().expect("firmware describes a GIC");
    assert!(firmware.version.value != GicVersion::V2, "a GICv2 is not for this driver");
    let regions = firmware.redistributors.iter().map(|region| RedistributorRegion {
        region: PhysicalRegion { base: region.base(), bytes: region.size() },
        stride: firmware.redistributor_stride.as_ref().map(|stride| stride.value),
    });
    let config = GicConfig::new(firmware.distributor.base(), regions.collect(), cpus(description));
    Gic::new(Arc::new(Kernel), config).expect("the GIC")
}

fn its(gic: &Gic<Kernel>, controller: &Controller, description: &Description) -> Arc<Its<Kernel>> {
    let base = controller.registers.as_ref().expect("an ITS has registers").base();
    let config = ItsConfig::new(base, cpus(description).len() as u32);
    ledger::watch(base, u64::from(config.queue_bytes / 32));
    let lpis = gic.lpis().expect("LPIs").clone();
    Arc::new(Its::new(gic.platform().clone(), lpis, &config).expect("the ITS"))
}

/// What firmware says of the host's requesters at the ITS.
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

fn functions(host: &PciHost, around: &Surroundings) -> Vec<Function> {
    match (host.config.as_ref().map(|config| config.value), &around.pci_window) {
        (Some(ConfigSpace::Ecam(ecam)), Some(window)) => pci::enumerate(ecam, window.clone()),
        _ => Vec::new(),
    }
}
