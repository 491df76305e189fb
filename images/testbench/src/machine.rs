//! Discovers the machine and brings it up, with the same calls that a kernel makes when it starts.

use crate::board::Board;
use crate::controller::{Controller, registers};
use crate::devices::DeviceKind;
use crate::report::{Test, Verdict};
use crate::smmu::{Behind, Smmu, SmmuDescription};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use gic_arch::Affinity;
use gic_bringup::{Irqchip, MsiController, Options};
use gic_driver::{GicPlatform, Its};
use gic_firmware::{Description, PciHost};
use image_rt::pci::{self, Function};
use image_rt::platform::Kernel;
use image_rt::start::Started;
use image_rt::{cpu, exceptions};
use irq_domain::layer::{DoorbellMapping, LayeredParent};
use irq_domain::{Interrupts, IrqHandle, MoveError, WiredRequest};
use msi_types::{Cpu, DoorbellPage, Granule, MsiParent, RequesterId, Trigger};
use spin::Once;

/// A test of the machine, with its name.
pub(crate) type NamedTest = (&'static str, Test<&'static Machine>);

/// All discovered parts of the machine.
pub(crate) struct Machine {
    pub(crate) board: &'static Board,
    pub(crate) description: Arc<Description>,
    pub(crate) irqchip: Irqchip<Kernel>,
    pub(crate) its: Option<Arc<Its<Kernel>>>,
    /// Parent of messages from the PCI host: the controller, or the layer above it.
    pub(crate) parent: Option<Arc<dyn MsiParent>>,
    /// Parent of messages that CPUs send. These messages bypass the layers between PCI and the
    /// controller.
    pub(crate) controller: Option<Arc<dyn MsiParent>>,
    pub(crate) smmu: Option<Translated>,
    pub(crate) interrupts: Interrupts,
    pub(crate) functions: Vec<Function>,
}

/// An SMMU in front of PCI, with its layer.
pub(crate) struct Translated {
    pub(crate) smmu: Arc<Smmu>,
    /// Layer that maps doorbells.
    pub(crate) doorbells: Arc<LayeredParent<DoorbellMapping<Behind>, dyn MsiParent>>,
}

static MACHINE: Once<Machine> = Once::new();

/// Number of acknowledged interrupts without a handler, and the INTID of the last such interrupt.
pub(crate) static UNHANDLED: AtomicU64 = AtomicU64::new(0);
pub(crate) static LAST_UNHANDLED: AtomicU32 = AtomicU32::new(0);

/// Returns the machine. Must be called after [`bring_up`].
pub(crate) fn machine() -> &'static Machine {
    MACHINE.get().unwrap_or_else(|| panic!("the machine was not brought up"))
}

/// Discovers the machine, makes the boot CPU take interrupts, and enumerates the PCI functions.
pub(crate) fn bring_up(description: Description, around: &Started) -> &'static Machine {
    let description = Arc::new(description);
    let options = Options::bare_metal().with_max_cpus(cpu::MAX_CPUS);
    let irqchip = Irqchip::with(Arc::new(Kernel), Arc::new(Kernel), description.clone(), &options);
    let irqchip = irqchip.expect("the interrupt controllers could not be brought up");
    irqchip
        .cpu_on(GicPlatform::cpu(&Kernel), &registers(), |_| ())
        .expect("the boot CPU could not be turned on");
    if let Some((index, reason)) = irqchip.refused().next() {
        panic!("controller {index:?}: {reason}");
    }
    let its = irqchip.controllers().find_map(|(_, driver)| match driver {
        MsiController::Its(its) => Some(its.clone()),
        _ => None,
    });
    let host = host(&description);
    let controller = host.and_then(|host| irqchip.pci_parent(host, RequesterId::pci(0, 0, 0)).ok());
    let interrupts = irqchip.interrupts().clone();
    let functions = host.map_or_else(Vec::new, |host| pci::enumerate(&description, host));
    let smmu = host.and_then(|host| SmmuDescription::of(&description, host));
    let smmu = smmu.map(Smmu::new).transpose().expect("the SMMU could not be initialized");
    let smmu = smmu.map(Arc::new);
    if let Some(smmu) = &smmu {
        attach(smmu, around, &functions);
    }
    let smmu =
        smmu.zip(controller.clone()).map(|(smmu, below)| translated(smmu, below, &interrupts));
    let parent = match &smmu {
        Some(smmu) => Some(smmu.doorbells.clone() as Arc<dyn MsiParent>),
        None => controller.clone(),
    };
    let found = Machine {
        board: Board::of(&description),
        description,
        irqchip,
        its,
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

/// Handles all pending interrupts, one after the other.
fn take_interrupts() {
    let machine = machine();
    let here = GicPlatform::cpu(&Kernel);
    machine.irqchip.handle_irq(here, &registers(), |vector, _| {
        UNHANDLED.fetch_add(1, Ordering::Relaxed);
        LAST_UNHANDLED.store(vector.get(), Ordering::Relaxed);
    });
}

impl Machine {
    /// Returns the root controller.
    pub(crate) fn gic(&self) -> &Controller {
        self.irqchip.gic()
    }

    /// Returns all CPUs, whether on or off.
    pub(crate) fn cpus(&self) -> impl Iterator<Item = Cpu> + use<> {
        self.irqchip.cpus()
    }

    /// Returns the CPUs that take interrupts.
    pub(crate) fn online_cpus(&self) -> Vec<Cpu> {
        self.interrupts.online_cpus().collect()
    }

    /// Returns the MSI parent for a function.
    pub(crate) fn parent_of(&self, function: &Function) -> Option<Arc<dyn MsiParent>> {
        // If there's an SMMU, all functions share its layer. Otherwise, functions without an alias
        // share the host bridge's parent.
        if self.smmu.is_some() || function.requester().alias.is_none() {
            return self.parent.clone();
        }
        self.irqchip.pci_parent(self.host()?, function.requester()).ok()
    }

    /// Returns the first function of this kind with a requester ID of its own.
    pub(crate) fn device(&self, name: &str) -> Result<(&Function, &'static DeviceKind), Verdict> {
        let own = self.functions.iter().filter(|one| one.requester().alias.is_none());
        let mut kinds = own.filter_map(|one| Some((one, DeviceKind::of(one)?)));
        let found = kinds.find(|(_, kind)| kind.name == name);
        found.ok_or_else(|| Verdict::Skipped(format!("no {name}")))
    }

    /// Returns the PCI host bridge that the tests use.
    pub(crate) fn host(&self) -> Option<&PciHost> {
        host(&self.description)
    }

    /// Returns `true` if the MSI controller is inside the host bridge, where no CPU can send a
    /// message to it. Its vectors share the target and the priority of a wired interrupt, their
    /// line.
    pub(crate) fn is_chained(&self) -> bool {
        let controller = self.controller.as_ref();
        controller.is_some_and(|one| one.doorbell_page(Granule::Size4K) == DoorbellPage::InBridge)
    }

    /// Moves an interrupt, or the line that determines the interrupt's target.
    pub(crate) fn route(&self, handle: &IrqHandle, to: Cpu) -> Result<(), MoveError> {
        match handle.set_affinity(to) {
            Err(MoveError::SharesLine(line)) => self.interrupts.set_affinity(line, to).map(drop),
            moved => moved.map(drop),
        }
    }

    /// Returns the affinity with which firmware identifies a CPU.
    pub(crate) fn affinity(&self, cpu: Cpu) -> Option<Affinity> {
        self.description.enabled_cpus().nth(cpu.index()).map(|cpu| cpu.affinity.value)
    }
}

fn host(description: &Description) -> Option<&PciHost> {
    description.hosts.iter().find(|host| host.status.is_enabled())
}

/// Creates an address space for every function.
fn attach(smmu: &Smmu, around: &Started, functions: &[Function]) {
    let memory = around.memory.start as u64..around.memory.end as u64;
    for stream in
        functions.iter().filter_map(|function| smmu.stream(function.requester().at_host()))
    {
        smmu.attach(stream, memory.clone()).expect("a stream's address space could not be created");
    }
}

/// Creates the layer that maps doorbells at the SMMU, and requests the SMMU's event interrupt.
fn translated(smmu: Arc<Smmu>, below: Arc<dyn MsiParent>, interrupts: &Interrupts) -> Translated {
    let reader = smmu.clone();
    let request = WiredRequest::new(smmu.event_spi(), Trigger::Edge, "smmu");
    let handle = interrupts.request_wired(request, move |_| reader.take_events());
    // Leak the handle, because the SMMU is never released.
    core::mem::forget(handle.expect("the SMMU's event interrupt could not be requested"));
    let layer = DoorbellMapping::new(Behind(smmu.clone()), Arc::new(Kernel));
    Translated { smmu, doorbells: Arc::new(LayeredParent::new(layer, below, Arc::new(Kernel))) }
}
