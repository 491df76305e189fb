//! A machine for trials, with one root controller, one layer above it, and one endpoint of each
//! kind.

use crate::cell::{BoardConfig, Endpoint, Layer, World};
use crate::device::{DeviceUpstreams, Devices, Probed};
use crate::gic_root::GicRootHardware;
use crate::root::{Built, CPUS, Driven, Root, RootHardware};
use crate::x86_root::X86Hardware;
use doorbell_hardware::bus::Bus;
use doorbell_hardware::iommu::{Iommu, IommuDriver};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::{Caches, Ram};
use gic_firmware::Region;
use irq_domain::layer::{self, DoorbellMapping, DoorbellMode, IommuDomain, LayeredParent};
use irq_domain::{Config, Host, Interrupts};
use msi_types::{Delivery, Granule, MsiMessage, MsiParent, RequesterId, SignalMsi};
use std::num::NonZeroU16;
use std::sync::Arc;

const RAM: u64 = 0x8000_0000;
const RAM_SIZE: u64 = 64 << 20;
/// The address range that x86 reserves for messages.
const MESSAGES: DoorbellMode = DoorbellMode::Reserved { base: 0xfee0_0000, length: 0x10_0000 };

/// The doorbell-mapping layer, with the parent below it.
type DoorbellLayer = LayeredParent<DoorbellMapping<IommuDriver>, dyn MsiParent>;

/// A running machine.
pub(crate) struct TrialBoard {
    platform: Arc<MachinePlatform>,
    ram: Arc<Ram>,
    devices: Devices,
    root: Box<dyn Root>,
    /// The IOMMU (if the machine has one) and the layer whose driver programs it.
    pub(crate) mapping: Option<Arc<DoorbellLayer>>,
    pub(crate) parent: Arc<dyn MsiParent>,
    pub(crate) interrupts: Interrupts,
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

/// Guest messages that the host's remapping unit remaps according to the guest's tables. The unit
/// blocks messages in compatibility format, i.e. with bit 4 of the address clear (Intel VT-d
/// specification, §5.1.2).
struct Remapped(Arc<dyn SignalMsi<RequesterId>>);

impl SignalMsi<RequesterId> for Remapped {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        if message.address & 1 << 4 == 0 {
            Delivery::Blocked
        } else {
            self.0.signal_msi(from, message)
        }
    }
}

impl TrialBoard {
    pub(crate) fn new(plan: BoardConfig) -> Built<Self> {
        let region = Region::new(RAM, RAM_SIZE).ok_or("RAM exceeds the address space")?;
        let ram = Arc::new(Ram::new(&[region], Caches::SnoopedBySome));
        let hardware: Box<dyn RootHardware> = if plan.parent.is_x86() {
            Box::new(X86Hardware::new(&plan, Arc::clone(&ram))?)
        } else {
            Box::new(GicRootHardware::new(&plan, Arc::clone(&ram))?)
        };
        let direct = hardware.upstream();
        let unit = (plan.layer == Layer::DoorbellMapping).then(|| iommu(&direct, mode(&plan)));
        let upstream = unit.as_ref().map_or(direct, |unit| Arc::clone(unit) as _);
        let own: Arc<dyn SignalMsi<RequesterId>> = match (plan.reality, plan.layer) {
            _ if plan.parent.is_virtual_bus() => Arc::clone(&upstream),
            (World::BareMetal, _) => Arc::clone(&upstream),
            (World::GuestRemapped, Layer::Remapping) => Arc::new(Remapped(Arc::clone(&upstream))),
            (World::Guest | World::GuestRemapped, _) => Arc::new(Untranslated),
        };
        let devices = Devices::new(DeviceUpstreams { bus: upstream, own }, &ram)
            .ok_or("the bus exceeds the address space")?;
        let mut bus = Bus::default();
        hardware.claim(&mut bus)?;
        devices.attach(&mut bus)?;
        let platform = Arc::new(MachinePlatform::new(Arc::new(bus), Arc::clone(&ram)));
        let Driven { root, parent, wired } = hardware.drive(&platform)?;
        let host: Arc<dyn Host> = Arc::clone(&platform) as _;
        // The x86 domain is told its surroundings itself.
        let parent = if plan.parent.is_x86() {
            parent
        } else {
            layer::surrounded(parent, plan.surroundings(), &host)?
        };
        let mapping = unit.map(|unit| {
            let layer = DoorbellMapping::new(IommuDriver::new(unit), Arc::clone(&platform) as _);
            Arc::new(LayeredParent::new(layer, Arc::clone(&parent), Arc::clone(&platform) as _))
        });
        let parent = mapping.as_ref().map_or(parent, |layer| Arc::clone(layer) as _);
        let cpus = NonZeroU16::new(CPUS).unwrap_or(NonZeroU16::MIN);
        let config = Config::new(cpus, Arc::clone(&platform) as _);
        let config = match wired {
            Some(wired) => config.with_wired(wired),
            None => config,
        };
        let interrupts = Interrupts::new(config)?;
        root.serve(&interrupts);
        for cpu in (0..CPUS.into()).map(msi_types::Cpu::new) {
            interrupts.cpu_online(cpu, |_| {})?;
        }
        Ok(Self { platform, ram, devices, root, mapping, parent, interrupts, mode: mode(&plan) })
    }

    pub(crate) fn probe(&self, endpoint: Endpoint) -> Result<Probed, String> {
        self.devices.probe(endpoint, &self.platform, &self.ram)
    }

    pub(crate) const fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Lets all CPUs take their pending interrupts.
    pub(crate) fn settle(&self) {
        self.root.settle();
    }

    /// Returns the number of acknowledged interrupts that had no handler.
    pub(crate) fn strays(&self) -> u64 {
        self.root.strays()
    }

    /// Returns the IOMMU, if the board has one.
    pub(crate) fn unit(&self) -> Option<&Arc<Iommu>> {
        self.mapping.as_ref().map(|mapping| mapping.layer().iommu().unit())
    }

    /// Returns the number of mapped pages, both as counted by the IOMMU and as counted by the
    /// layer.
    pub(crate) fn pages(&self) -> (usize, usize) {
        let counted = self.mapping.as_ref().map_or(0, |mapping| mapping.layer().pages());
        (self.unit().map_or(0, |unit| unit.pages()), counted)
    }

    /// Returns the number of messages that the IOMMU blocked. Returns `None` if the board has no
    /// IOMMU, or if a doorbell is currently mapped in the IOMMU.
    pub(crate) fn stopped(&self) -> Option<u64> {
        let unit = self.unit()?;
        let maps = matches!(self.mode, DoorbellMode::Mapped(_));
        (maps && unit.pages() == 0).then(|| unit.stopped())
    }

    /// Returns the number of migrations.
    pub(crate) fn migrated(&self) -> u64 {
        self.root.migrated().unwrap()
    }

    /// Checks that all resources have been released, and that no driver has an unreported fault.
    pub(crate) fn check_quiet(&self) -> Result<(), String> {
        self.root
            .migrated()
            .map_err(|reason| format!("the controller was not migrated: {reason}"))?;
        if let Some(fault) = self.root.silent_fault() {
            return Err(fault);
        }
        if let Some(kept) = self.root.kept() {
            return Err(format!("not released: {kept}"));
        }
        let irqs = self.interrupts.snapshot().map_err(|error| error.to_string())?.len();
        if irqs != 0 {
            return Err(format!("not released: {irqs} IRQ numbers"));
        }
        match self.pages() {
            (0, 0) => Ok(()),
            (mapped, counted) => Err(format!(
                "not released: {mapped} pages of the IOMMU, {counted} by the layer's count"
            )),
        }
    }
}

/// Returns the mode of the board's IOMMU, if it has one.
fn mode(plan: &BoardConfig) -> DoorbellMode {
    if plan.parent.is_x86() { MESSAGES } else { DoorbellMode::Mapped(Granule::Size4K) }
}

/// Creates an IOMMU with two domains. The PCI functions share one domain, and all other devices
/// share the other.
fn iommu(upstream: &Arc<dyn SignalMsi<RequesterId>>, mode: DoorbellMode) -> Arc<Iommu> {
    let unit = Iommu::new(Arc::clone(upstream));
    for endpoint in Endpoint::ALL {
        let domain = match endpoint {
            Endpoint::PciMsi | Endpoint::PciMultiMsi | Endpoint::PciMsix | Endpoint::Ath11k => {
                IommuDomain(1)
            }
            Endpoint::ImsRing | Endpoint::Platform | Endpoint::Emulated => IommuDomain(2),
        };
        unit.attach(endpoint.requester(), domain);
    }
    unit.create(IommuDomain(1), mode);
    unit.create(IommuDomain(2), mode);
    Arc::new(unit)
}
