//! A machine for trials, with one root controller, one layer above it, and one endpoint of each
//! kind.

use super::cell::{BoardConfig, Endpoint, Layer, Parent};
use super::device::{DeviceUpstreams, Devices, Probed};
use super::{gic, x86};
use crate::board_trees::region;
use doorbell_hardware::bridge_msi::{BridgeMsi, InBridge};
use doorbell_hardware::bus::Bus;
use doorbell_hardware::iommu::{Iommu, IommuDriver};
use doorbell_hardware::pci::Translator;
use doorbell_hardware::platform::{CpuBus, MachinePlatform};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::icc::SysRegEncoding;
use irq_domain::layer::{DoorbellMapping, DoorbellMode, IommuDomain, LayeredParent};
use irq_domain::{Interrupts, Irq};
use msi_types::explain::Explanation;
use msi_types::{Delivery, DeviceId, Granule, Line, MsiMessage, MsiParent, RequesterId, SignalMsi};
use std::error::Error;
use std::sync::Arc;

/// A part of a board, or the reason why it cannot be built.
pub(super) type Built<T> = Result<T, Box<dyn Error>>;

/// Number of CPUs on a board.
pub(super) const CPUS: u16 = 3;

const RAM: u64 = 0x8000_0000;
const RAM_SIZE: u64 = 64 << 20;
/// The address range that x86 reserves for messages.
const MESSAGES: DoorbellMode = DoorbellMode::Reserved { base: 0xfee0_0000, length: 0x10_0000 };

/// A root controller and its CPUs.
pub(super) trait Root {
    /// Lets the CPUs take interrupts until none is pending.
    fn settle(&self);

    /// Returns the number of acknowledged interrupts that had no handler.
    fn strays(&self) -> u64;

    /// Describes the resources that have not been released. Returns `None` if all have been
    /// released.
    fn kept(&self) -> Option<String>;

    /// Returns the number of migrations, or the reason why a migration failed.
    fn migrated(&self) -> Result<u64, String> {
        Ok(0)
    }

    /// Returns a fault that a driver recorded because it could not return an error.
    fn silent_fault(&self) -> Option<String> {
        None
    }

    /// Lets the CPUs take some interrupts. Returns `false` if more are pending.
    fn take_some(&self) -> bool {
        true
    }

    /// Explains why an interrupt's handler does not run, on CPU 0.
    fn explain(&self, _: Irq) -> Option<Explanation> {
        None
    }

    /// Reads one of CPU 0's registers, or writes it.
    fn system(&self, _: SysRegEncoding, _: Option<u64>) -> u64 {
        0
    }
}

/// A root controller whose drivers have been brought up.
pub(super) struct Driven {
    pub(super) root: Box<dyn Root>,
    pub(super) parent: Arc<dyn MsiParent>,
    pub(super) interrupts: Interrupts,
}

/// The doorbell-mapping layer, with the parent below it.
type DoorbellLayer = LayeredParent<DoorbellMapping<IommuDriver>, dyn MsiParent>;

/// A running machine.
pub(super) struct TrialBoard {
    platform: Arc<MachinePlatform>,
    pub(super) devices: Devices,
    root: Box<dyn Root>,
    /// The layer whose driver programs the IOMMU, if the board has one.
    mapping: Option<Arc<DoorbellLayer>>,
    pub(super) parent: Arc<dyn MsiParent>,
    pub(super) interrupts: Interrupts,
    mode: DoorbellMode,
}

/// Guest messages that the hypervisor does not translate. The hardware receives exactly what the
/// guest wrote, and does not recognize it as a message.
struct Untranslated;

impl SignalMsi<RequesterId> for Untranslated {
    fn signal_msi(&self, _from: RequesterId, _message: MsiMessage) -> Delivery {
        Delivery::NoDoorbell
    }
}

impl TrialBoard {
    pub(super) fn new(plan: BoardConfig) -> Built<Self> {
        let ram = Arc::new(Ram::new(&[region(RAM, RAM_SIZE)], Caches::SnoopedBySome));
        let mut bus = Bus::default();
        if plan.parent == Parent::X86Vector {
            let chipset = x86::hardware(&plan, &ram);
            let root = Arc::clone(&chipset) as _;
            let drive = |platform: &_| x86::drive(&plan, &chipset, platform);
            return Self::with_root(&plan, (root, MESSAGES), (bus, ram), drive);
        }
        let hardware = gic::hardware(plan.parent, Arc::clone(&ram))?;
        let hyperv = gic::hyperv(&plan, &hardware)?;
        hardware.attach(&mut bus)?;
        if let Parent::Bridge(kind) = plan.parent {
            let lines = vec![Line::Spi(gic::BRIDGE_SPI)];
            let inside = Arc::new(BridgeMsi::new(kind, lines, hardware.lines()));
            bus.attach("bridge", region(gic::BRIDGE, 0x1000), Arc::clone(&inside) as _)?;
            let root = Arc::new(InBridge::new(inside, Arc::new(Untranslated)));
            let mode = DoorbellMode::Mapped(Granule::Size4K);
            let drive = |platform: &_| gic::drive(&plan, hardware, None, platform);
            return Self::with_root(&plan, (root, mode), (bus, ram), drive);
        }
        let identity = |requester: RequesterId| Some(DeviceId::new(requester.get()));
        let root: Arc<dyn SignalMsi<RequesterId>> = match &hyperv {
            Some(host) => Arc::clone(host) as _,
            None => Arc::new(Translator::new(Arc::new(hardware.doorbells()), identity)),
        };
        let mode = DoorbellMode::Mapped(Granule::Size4K);
        let drive = |platform: &_| gic::drive(&plan, hardware, hyperv, platform);
        Self::with_root(&plan, (root, mode), (bus, ram), drive)
    }

    /// Builds a board around a root controller, which receives device writes through `root`, and
    /// whose drivers `drive` brings up.
    fn with_root(
        plan: &BoardConfig,
        (root, mode): (Arc<dyn SignalMsi<RequesterId>>, DoorbellMode),
        (mut bus, ram): (Bus, Arc<Ram>),
        drive: impl FnOnce(&Arc<MachinePlatform>) -> Built<Driven>,
    ) -> Built<Self> {
        let unit = (plan.layer == Layer::DoorbellMapping).then(|| iommu(Arc::clone(&root), mode));
        let upstream = unit.as_ref().map_or(root, |unit| Arc::clone(unit) as _);
        let own: Arc<dyn SignalMsi<RequesterId>> = if plan.stored_messages_are_real() {
            Arc::clone(&upstream)
        } else {
            Arc::new(Untranslated)
        };
        let devices = Devices::new(DeviceUpstreams { bus: upstream, own });
        devices.attach(&mut bus)?;
        let platform = Arc::new(MachinePlatform::new(Arc::new(bus), ram));
        let Driven { root, parent, interrupts } = drive(&platform)?;
        let mapping = unit.map(|unit| {
            let layer = DoorbellMapping::new(IommuDriver::new(unit), Arc::clone(&platform) as _);
            Arc::new(LayeredParent::new(layer, Arc::clone(&parent), Arc::clone(&platform) as _))
        });
        let parent = mapping.as_ref().map_or(parent, |layer| Arc::clone(layer) as _);
        Ok(Self { platform, devices, root, mapping, parent, interrupts, mode })
    }

    pub(super) fn probe(&self, endpoint: Endpoint) -> Probed {
        self.devices.probe(endpoint, &self.platform)
    }

    pub(super) fn bus(&self) -> CpuBus {
        self.platform.cpu_bus()
    }

    pub(super) fn take_some(&self) -> bool {
        self.root.take_some()
    }

    pub(super) fn explain(&self, irq: Irq) -> Explanation {
        self.root.explain(irq).unwrap()
    }

    pub(super) fn system(&self, register: SysRegEncoding, value: Option<u64>) -> u64 {
        self.root.system(register, value)
    }

    /// Lets all CPUs take their pending interrupts.
    pub(super) fn settle(&self) {
        self.root.settle();
    }

    /// Returns the number of acknowledged interrupts that had no handler.
    pub(super) fn strays(&self) -> u64 {
        self.root.strays()
    }

    /// Returns the number of messages that the IOMMU blocked. Returns `None` if the board has no
    /// IOMMU, or if a doorbell is currently mapped in the IOMMU.
    pub(super) fn stopped(&self) -> Option<u64> {
        let unit = self.mapping.as_ref()?.layer().iommu().unit();
        let maps = matches!(self.mode, DoorbellMode::Mapped(_));
        (maps && unit.pages() == 0).then(|| unit.stopped())
    }

    /// Returns the number of migrations.
    pub(super) fn migrated(&self) -> u64 {
        self.root.migrated().unwrap()
    }

    /// Asserts that all resources have been released, and that no driver has an unreported fault.
    #[track_caller]
    pub(super) fn assert_quiet(&self) {
        self.migrated();
        let mapped = self.mapping.as_ref().map(|mapping| {
            let layer = mapping.layer();
            (layer.iommu().unit().pages(), layer.pages())
        });
        assert_eq!(self.root.silent_fault(), None);
        assert_eq!((self.root.kept(), mapped.unwrap_or_default()), (None, (0, 0)));
        assert_eq!(self.interrupts.snapshot().unwrap().len(), 0, "IRQ numbers are kept");
    }
}

/// Creates an IOMMU with two domains. The PCI functions share one domain, and all other devices
/// share the other.
fn iommu(upstream: Arc<dyn SignalMsi<RequesterId>>, mode: DoorbellMode) -> Arc<Iommu> {
    let unit = Iommu::new(upstream);
    for endpoint in Endpoint::ALL {
        unit.attach(endpoint.requester(), IommuDomain(if endpoint.is_pci() { 1 } else { 2 }));
    }
    unit.create(IommuDomain(1), mode);
    unit.create(IommuDomain(2), mode);
    Arc::new(unit)
}
