//! A board's endpoints: their hardware, and the message stores that their drivers find.

use super::cell::Endpoint;
use crate::board_trees::region;
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::pci::enumerate::enumerate;
use doorbell_hardware::pci::{
    AddressWidth, DevFn, DeviceFunctions, Function, FunctionConfig, HostBridge, Segment, Signaled,
    StoreConfig, Windows,
};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::platform_device::{
    self, PlatformDevice, PlatformDeviceConfig, PlatformStore,
};
use gic_firmware::BusRange;
use irq_domain::pci::FunctionStore;
use irq_domain::{Host, MessageCopy};
use msi_types::{Delivery, DeviceId, Masking, MsiMessage, RequesterId, Shape, SignalMsi, Storage};
use std::sync::Arc;

/// Vector counts of the endpoints that need a fixed number of vectors.
const GROUP_LOG2: u8 = 3;
const TABLE: u16 = 8;
const PLATFORM: u16 = 4;

/// Base addresses for the endpoints' registers.
pub(super) const ECAM: u64 = 0x2000_0000;
const WINDOW: u64 = 0x3000_0000;
const PLATFORM_REGISTERS: u64 = 0x0b00_0000;
const EMULATED_REGISTERS: u64 = 0x0b01_0000;

impl Endpoint {
    /// The functions on the host bridge's bus.
    const FUNCTIONS: [Self; 4] = [Self::PciMsi, Self::PciMultiMsi, Self::PciMsix, Self::Ath11k];

    /// Returns the requesters that a virtual bus offers, i.e. the board's PCI functions.
    pub(super) fn functions() -> [RequesterId; 4] {
        Self::FUNCTIONS.map(Self::requester)
    }

    /// Returns the requester ID. Endpoints outside PCI have one as well.
    pub(super) const fn requester(self) -> RequesterId {
        RequesterId::pci(0, 1 + self as u8, 0)
    }

    pub(super) fn is_pci(self) -> bool {
        Self::FUNCTIONS.contains(&self)
    }

    const fn store(self) -> StoreConfig {
        let address = AddressWidth::Bits64;
        match self {
            Self::PciMsi => StoreConfig::Msi { log2_vectors: 0, address, masking: Masking::None },
            Self::Ath11k => StoreConfig::Msi { log2_vectors: 2, address, masking: Masking::None },
            Self::PciMultiMsi => {
                StoreConfig::Msi { log2_vectors: GROUP_LOG2, address, masking: Masking::PerVector }
            }
            Self::PciMsix => StoreConfig::Msix { vectors: TABLE, table_bar: 0, pba_bar: 2 },
            Self::Platform | Self::Emulated => StoreConfig::None,
        }
    }

    /// Returns the number of vectors that the driver requests, and the smaller number that it also
    /// accepts.
    pub(super) const fn wanted(self) -> (u16, u16) {
        match self {
            Self::PciMsi => (1, 1),
            Self::Ath11k => (4, 1),
            Self::PciMultiMsi => (1 << GROUP_LOG2, 1 << GROUP_LOG2),
            // Some vectors remain free, so that the trial can allocate them later.
            Self::PciMsix => (TABLE - 2, TABLE - 2),
            Self::Platform | Self::Emulated => (PLATFORM - 1, PLATFORM - 1),
        }
    }

    /// Returns `true` if the driver adds and frees vectors while it is running.
    pub(super) const fn adds_later(self) -> bool {
        matches!(self, Self::PciMsix | Self::Platform | Self::Emulated)
    }
}

/// Destinations of the devices' messages.
pub(super) struct DeviceUpstreams {
    /// Destination for devices whose message stores a hypervisor traps, i.e. PCI functions with
    /// PCI-defined registers, and emulated devices.
    pub(super) bus: Arc<dyn SignalMsi<RequesterId>>,
    /// Destination for devices that store their messages elsewhere.
    pub(super) own: Arc<dyn SignalMsi<RequesterId>>,
}

impl DeviceUpstreams {
    fn of(&self, endpoint: Endpoint) -> &Arc<dyn SignalMsi<RequesterId>> {
        match endpoint {
            Endpoint::Ath11k | Endpoint::Platform => &self.own,
            _ => &self.bus,
        }
    }
}

/// All endpoints' hardware.
pub(super) struct Devices {
    host: Arc<HostBridge>,
    platform: Arc<PlatformDevice>,
    emulated: Arc<PlatformDevice>,
    upstreams: DeviceUpstreams,
}

impl Devices {
    pub(super) fn new(upstreams: DeviceUpstreams) -> Self {
        let device = |endpoint: Endpoint| {
            let upstream = Arc::new(ByDeviceId(Arc::clone(upstreams.of(endpoint))));
            let config = PlatformDeviceConfig::new(PLATFORM);
            let id = DeviceId::new(endpoint.requester().get());
            Arc::new(PlatformDevice::new(id, config, upstream))
        };
        let (platform, emulated) = (device(Endpoint::Platform), device(Endpoint::Emulated));
        let mut root = Segment::new(0);
        for endpoint in Endpoint::FUNCTIONS {
            let config = FunctionConfig {
                store: endpoint.store(),
                at: DevFn::new(endpoint.requester().pci_device(), 0),
                functions_in_device: DeviceFunctions::One,
            };
            root.plug(config, Arc::clone(upstreams.of(endpoint)));
        }
        let windows = Windows {
            ecam: region(ECAM, 1 << 20),
            memory: region(WINDOW, 16 << 20),
            buses: BusRange { first: 0, last: 0 },
        };
        Self { host: Arc::new(HostBridge::new(windows, root)), platform, emulated, upstreams }
    }

    pub(super) fn attach(&self, bus: &mut Bus) -> Result<(), Overlap> {
        let windows = self.host.windows();
        bus.attach("ECAM", windows.ecam, self.host.ecam())?;
        bus.attach("PCI memory", windows.memory, self.host.memory())?;
        let registers = |base| region(base, platform_device::SIZE);
        bus.attach("platform device", registers(PLATFORM_REGISTERS), self.platform.clone())?;
        bus.attach("emulated device", registers(EMULATED_REGISTERS), self.emulated.clone())
    }

    /// Finds an endpoint's message store in the same way as its driver.
    pub(super) fn probe(&self, endpoint: Endpoint, platform: &Arc<MachinePlatform>) -> Probed {
        let bus = platform.cpu_bus();
        let (registers, device, storage) = match endpoint {
            Endpoint::Platform => (PLATFORM_REGISTERS, &self.platform, Storage::Device),
            Endpoint::Emulated => (EMULATED_REGISTERS, &self.emulated, Storage::Emulated),
            _ => {
                let found = enumerate(&bus, self.host.windows()).unwrap();
                let requester = endpoint.requester();
                let is_it = |function: &&Arc<Function>| function.requester() == requester;
                let function = self.host.functions().iter().find(is_it).unwrap();
                let found = found.iter().find(|it| it.requester().function == requester).unwrap();
                let found = found.store(Arc::clone(platform) as Arc<dyn Host>).unwrap();
                let hardware = EndpointHardware::Function(Arc::clone(function));
                return Probed { endpoint, hardware, found };
            }
        };
        let store = Arc::new(PlatformStore::new(bus, registers).with_storage(storage));
        let found = FunctionStore { store, shape: Shape::Independent };
        Probed { endpoint, hardware: EndpointHardware::Platform(Arc::clone(device)), found }
    }

    /// Writes a message from the endpoint, regardless of what its store contains.
    pub(super) fn write(&self, endpoint: Endpoint, message: MsiMessage) {
        self.upstreams.of(endpoint).signal_msi(endpoint.requester(), message);
    }
}

/// The upstream of a device whose DeviceID equals its requester ID.
struct ByDeviceId(Arc<dyn SignalMsi<RequesterId>>);

impl SignalMsi<DeviceId> for ByDeviceId {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        self.0.signal_msi(RequesterId::new(from.get()), message)
    }
}

enum EndpointHardware {
    Function(Arc<Function>),
    Platform(Arc<PlatformDevice>),
}

/// An endpoint whose driver has found its message store.
pub(super) struct Probed {
    pub(super) endpoint: Endpoint,
    hardware: EndpointHardware,
    pub(super) found: FunctionStore,
}

impl Probed {
    /// Returns the driver's function that copies messages into the device, if it does so.
    pub(super) fn copy(&self) -> Option<Arc<MessageCopy>> {
        let EndpointHardware::Function(function) = &self.hardware else { return None };
        (self.endpoint == Endpoint::Ath11k).then(|| function.copier())
    }

    /// Makes the device send the message in a slot.
    pub(super) fn signal(&self, slot: u16) -> Signaled {
        match &self.hardware {
            EndpointHardware::Function(function) => function.signal(slot),
            EndpointHardware::Platform(device) => device.signal(slot),
        }
    }
}
