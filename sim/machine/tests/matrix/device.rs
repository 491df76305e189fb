//! A board's endpoints: their hardware, and the message stores that their drivers find.

use crate::cell::Endpoint;
use doorbell_hardware::bus::{Bus, DeviceWrites, Doorbells, Overlap, Written};
use doorbell_hardware::ims::{RingDevice, RingStore};
use doorbell_hardware::pci::enumerate::enumerate;
use doorbell_hardware::pci::{
    AddressWidth, DevFn, DeviceFunctions, Function, FunctionConfig, HostBridge, Segment, Signaled,
    StoreConfig, Windows,
};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::platform_device::{self, PlatformDevice, PlatformStore};
use doorbell_hardware::ram::Ram;
use gic_firmware::{BusRange, Region};
use irq_domain::MessageCopy;
use irq_domain::pci::FunctionStore;
use msi_types::{DeviceId, Masking, MessageStore, MsiMessage, RequesterId, Shape, SignalMsi};
use std::sync::Arc;

/// Vector counts of the endpoints that need a fixed number of vectors.
const GROUP_LOG2: u8 = 3;
const TABLE: u16 = 8;
const PLATFORM: u16 = 4;
/// Number of rings of the ring device (a wireless adapter). The rings share 32 vectors, or a single
/// vector.
const RINGS: u16 = 40;
const RING_VECTORS: u16 = 32;

/// Base addresses for the endpoints' registers.
const ECAM: u64 = 0x2000_0000;
const WINDOW: u64 = 0x3000_0000;
const RING_REGISTERS: u64 = 0x0900_0000;
const PLATFORM_REGISTERS: u64 = 0x0902_0000;
const EMULATED_REGISTERS: u64 = 0x0903_0000;

impl Endpoint {
    /// The functions on the host bridge's bus.
    pub(crate) const FUNCTIONS: [Self; 4] =
        [Self::PciMsi, Self::PciMultiMsi, Self::PciMsix, Self::Ath11k];

    /// Returns the device number on the host bridge's bus. Endpoints outside PCI have a number as
    /// well.
    const fn device(self) -> u8 {
        match self {
            Self::PciMsi => 1,
            Self::PciMultiMsi => 2,
            Self::PciMsix => 3,
            Self::ImsRing => 4,
            Self::Platform => 5,
            Self::Emulated => 6,
            Self::Ath11k => 7,
        }
    }

    /// Returns the requester ID.
    pub(crate) const fn requester(self) -> RequesterId {
        RequesterId::pci(0, self.device(), 0)
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
            Self::ImsRing | Self::Platform | Self::Emulated => StoreConfig::None,
        }
    }
}

/// Destinations of the devices' messages.
pub(crate) struct DeviceUpstreams {
    /// Destination for devices whose message stores a hypervisor traps, i.e. PCI functions with
    /// PCI-defined registers, and emulated devices.
    pub(crate) bus: Arc<dyn SignalMsi<RequesterId>>,
    /// Destination for devices that store their messages elsewhere.
    pub(crate) own: Arc<dyn SignalMsi<RequesterId>>,
}

/// All endpoints' hardware.
pub(crate) struct Devices {
    host: Arc<HostBridge>,
    ring: Arc<RingDevice>,
    platform: Arc<PlatformDevice>,
    emulated: Arc<PlatformDevice>,
    ways: DeviceUpstreams,
}

impl Devices {
    pub(crate) fn new(ways: DeviceUpstreams, ram: &Arc<Ram>) -> Option<Self> {
        let requester = Endpoint::ImsRing.requester();
        let ring = RingDevice::new(requester, RINGS, Arc::clone(ram), Arc::clone(&ways.own));
        let platform = Arc::new(platform_device(Endpoint::Platform, Arc::clone(&ways.own)));
        let emulated = Arc::new(platform_device(Endpoint::Emulated, Arc::clone(&ways.bus)));
        let host = Arc::new(host_bridge(&ways)?);
        Some(Self { host, ring: Arc::new(ring), platform, emulated, ways })
    }

    pub(crate) fn attach(&self, bus: &mut Bus) -> Result<(), Overlap> {
        let windows = self.host.windows();
        bus.attach("ECAM", windows.ecam, self.host.ecam())?;
        bus.attach("PCI memory", windows.memory, self.host.memory())?;
        let devices: [(&str, u64, u64, Arc<dyn doorbell_hardware::bus::MmioDevice>); 3] = [
            ("rings", RING_REGISTERS, RingDevice::SIZE, Arc::clone(&self.ring) as _),
            (
                "platform device",
                PLATFORM_REGISTERS,
                platform_device::SIZE,
                Arc::clone(&self.platform) as _,
            ),
            (
                "emulated device",
                EMULATED_REGISTERS,
                platform_device::SIZE,
                Arc::clone(&self.emulated) as _,
            ),
        ];
        for (name, base, size, device) in devices {
            if let Some(region) = Region::new(base, size) {
                bus.attach(name, region, device)?;
            }
        }
        Ok(())
    }

    /// Finds an endpoint's message store in the same way as its driver.
    pub(crate) fn probe(
        &self,
        endpoint: Endpoint,
        platform: &Arc<MachinePlatform>,
        ram: &Arc<Ram>,
    ) -> Result<Probed, String> {
        let bus = platform.cpu_bus();
        let (hardware, found, rings) = match endpoint {
            Endpoint::PciMsi | Endpoint::PciMultiMsi | Endpoint::PciMsix | Endpoint::Ath11k => {
                let found =
                    enumerate(&bus, self.host.windows()).map_err(|error| error.to_string())?;
                let mut found = found.into_iter();
                let found = found.find(|it| it.requester().function == endpoint.requester());
                let mut functions = self.host.functions().iter();
                let function =
                    functions.find(|function| function.requester() == endpoint.requester());
                let (found, function) = found.zip(function).ok_or("the function was not found")?;
                let store =
                    found.store(Arc::clone(platform) as _).map_err(|error| error.to_string())?;
                (EndpointHardware::Function(Arc::clone(function)), store, None)
            }
            Endpoint::ImsRing => {
                let store = RingStore::new(bus, Arc::clone(ram), RING_REGISTERS, RING_VECTORS);
                let store = Arc::new(store.ok_or("out of memory for the rings")?);
                (
                    EndpointHardware::Ring(Arc::clone(&self.ring)),
                    independent(Arc::clone(&store) as _),
                    Some(store),
                )
            }
            Endpoint::Platform => {
                let store = Arc::new(PlatformStore::new(bus, PLATFORM_REGISTERS));
                (EndpointHardware::Platform(Arc::clone(&self.platform)), independent(store), None)
            }
            Endpoint::Emulated => {
                let store = Arc::new(PlatformStore::new(bus, EMULATED_REGISTERS).emulated());
                (EndpointHardware::Platform(Arc::clone(&self.emulated)), independent(store), None)
            }
        };
        Ok(Probed { endpoint, hardware, found, rings })
    }

    /// Writes a message from the endpoint, regardless of what its store contains.
    pub(crate) fn write(&self, endpoint: Endpoint, message: MsiMessage) {
        let way = match endpoint {
            Endpoint::PciMsi | Endpoint::PciMultiMsi | Endpoint::PciMsix | Endpoint::Emulated => {
                &self.ways.bus
            }
            Endpoint::Ath11k | Endpoint::ImsRing | Endpoint::Platform => &self.ways.own,
        };
        way.signal_msi(endpoint.requester(), message);
    }
}

fn platform_device(
    endpoint: Endpoint,
    upstream: Arc<dyn SignalMsi<RequesterId>>,
) -> PlatformDevice {
    let requester = endpoint.requester();
    let behind = Doorbells::new(Arc::new(FixedRequester { requester, upstream }));
    PlatformDevice::new(DeviceId::new(requester.get()), PLATFORM, Arc::new(behind))
}

fn independent(store: Arc<dyn MessageStore>) -> FunctionStore {
    FunctionStore { store, shape: Shape::Independent }
}

fn host_bridge(ways: &DeviceUpstreams) -> Option<HostBridge> {
    let mut root = Segment::new(0);
    for endpoint in Endpoint::FUNCTIONS {
        let upstream = if endpoint == Endpoint::Ath11k { &ways.own } else { &ways.bus };
        let at = DevFn::new(endpoint.device(), 0);
        let plan = FunctionConfig {
            store: endpoint.store(),
            at,
            functions_in_device: DeviceFunctions::One,
        };
        root.plug(plan, Arc::clone(upstream));
    }
    let windows = Windows {
        ecam: Region::new(ECAM, 1 << 20)?,
        memory: Region::new(WINDOW, 16 << 20)?,
        buses: BusRange { first: 0, last: 0 },
    };
    Some(HostBridge::new(windows, root))
}

/// An upstream that adds the requester ID to the writes of a device that doesn't send it.
struct FixedRequester {
    requester: RequesterId,
    upstream: Arc<dyn SignalMsi<RequesterId>>,
}

impl DeviceWrites for FixedRequester {
    fn write(&self, address: u64, data: u32) -> Written {
        Written::Message(self.upstream.signal_msi(self.requester, MsiMessage { address, data }))
    }
}

enum EndpointHardware {
    Function(Arc<Function>),
    Ring(Arc<RingDevice>),
    Platform(Arc<PlatformDevice>),
}

/// An endpoint whose driver has found its message store.
pub(crate) struct Probed {
    pub(crate) endpoint: Endpoint,
    hardware: EndpointHardware,
    pub(crate) found: FunctionStore,
    pub(crate) rings: Option<Arc<RingStore>>,
}

impl Probed {
    /// Returns the number of vectors that the driver requests, and the smaller number that it also
    /// accepts.
    pub(crate) const fn wanted(&self) -> (u16, u16) {
        match self.endpoint {
            Endpoint::PciMsi => (1, 1),
            Endpoint::Ath11k => (4, 1),
            Endpoint::PciMultiMsi => (1 << GROUP_LOG2, 1 << GROUP_LOG2),
            // Some vectors remain free, so that the trial can allocate them later.
            Endpoint::PciMsix => (TABLE - 2, TABLE - 2),
            Endpoint::ImsRing => (RING_VECTORS, 1),
            Endpoint::Platform | Endpoint::Emulated => (PLATFORM - 1, PLATFORM - 1),
        }
    }

    /// Returns `true` if the driver adds and frees vectors while it is running.
    pub(crate) const fn adds_later(&self) -> bool {
        matches!(self.endpoint, Endpoint::PciMsix | Endpoint::Platform | Endpoint::Emulated)
    }

    /// Returns the senders, each with the slot of its vector. The senders are the rings if the
    /// device has rings, otherwise the `slots`.
    pub(crate) fn senders(&self, slots: &[u16]) -> Vec<(u16, u16)> {
        match &self.rings {
            Some(store) => (0..store.rings()).map(|ring| (ring, store.slot_of(ring))).collect(),
            None => slots.iter().map(|slot| (*slot, *slot)).collect(),
        }
    }

    /// Returns the driver's function that copies messages into the device, if it does so.
    pub(crate) fn copy(&self) -> Option<Arc<MessageCopy>> {
        let EndpointHardware::Function(function) = &self.hardware else { return None };
        (self.endpoint == Endpoint::Ath11k).then(|| function.copier())
    }

    /// Makes a sender send its message.
    pub(crate) fn signal(&self, sender: u16) -> Signaled {
        match &self.hardware {
            EndpointHardware::Function(function) => function.signal(sender),
            EndpointHardware::Ring(device) => device.signal(sender),
            EndpointHardware::Platform(device) => device.signal(sender),
        }
    }
}
