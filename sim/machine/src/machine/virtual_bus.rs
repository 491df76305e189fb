//! The virtual PCI bus on a machine that is a guest of Hyper-V or a compatible hypervisor.
//!
//! Firmware doesn't describe virtual buses: VMBus offers them while the guest runs. The machine
//! therefore adds the bus to its own copy of the description, as a controller that receives
//! messages.

use super::controller_choice::{HYPERV_VPCI, is_virtual_bus};
use super::gic;
use super::populate::{self, CandidateMap, Functions};
use super::{AddressPlan, BuildOptions, Refusal};
use crate::migration::Migration;
use crate::model::GicModel;
use crate::trace::Recorder;
use doorbell_hardware::bus::{Bus, Doorbells, Overlap};
use doorbell_hardware::hyperv::{HostMigration, HypervHost, MESSAGE_ADDRESS};
use doorbell_hardware::pci::{HostBridge, Translator, Windows};
use gic_firmware::{BusRange, Controller, ControllerIndex, ControllerKind, Description, Region};
use hyperv_vpci::host::Injection;
use msi_types::{DeviceId, RequesterId};
use std::sync::Arc;

/// Compatible string that identifies a machine with virtual buses, as in OpenVMM's devicetree.
const OPENVMM: &str = "microsoft,openvmm";
/// Name of the bus.
pub(crate) const NAME: &str = "vpci";
/// Bus number that the kernel uses for the virtual bus.
const BUSES: BusRange = BusRange { first: 0, last: 0 };
/// Number of slots in each group of devices.
const GROUP: u8 = 10;
/// Number of slots that hold functions by default.
const SLOTS: u8 = 3 * GROUP;
const ECAM: u64 = 1 << 20;
const MEMORY: u64 = 64 << 20;
const PAGE: u64 = 0x1000;

/// A planned virtual bus.
pub(super) struct VirtualBusPlan {
    controller: ControllerIndex,
    windows: Windows,
    functions: Functions,
}

/// The host end of a virtual bus, and its functions.
pub(crate) struct VirtualBusHardware {
    /// Index in [`Description::controllers`].
    pub(crate) controller: ControllerIndex,
    pub(crate) bridge: Arc<HostBridge>,
    pub(crate) host: Arc<HypervHost>,
}

/// Adds the bus to the description of a machine that has one.
pub(super) fn enter(description: &mut Description) {
    if description.compatible.iter().any(|name| name == OPENVMM) {
        let kind = ControllerKind::Other(HYPERV_VPCI.to_owned());
        let registers = Region::new(MESSAGE_ADDRESS, PAGE);
        description.controllers.push(Controller::new(NAME, kind, registers));
    }
}

/// Plans the bus and its functions, if the machine has a participating bus.
pub(super) fn plan(
    description: &Description,
    options: &BuildOptions,
    space: &mut AddressPlan,
) -> Result<Option<VirtualBusPlan>, Refusal> {
    let mut controllers = description.indexed_controllers();
    let bus = controllers.find(|(_, controller)| is_virtual_bus(&controller.kind));
    let Some((controller, described)) = bus.filter(|(_, bus)| options.controller.serves(bus))
    else {
        return Ok(None);
    };
    if let Some(messages) = &described.registers {
        space.claim("the virtual bus's messages", messages.value)?;
    }
    let functions = functions(options, space);
    let ecam = space.invent("an ECAM window", "vpci ECAM", ECAM)?;
    let memory = space.invent("a PCI memory window", "vpci memory", MEMORY)?;
    let windows = Windows { ecam, memory, buses: BUSES };
    Ok(Some(VirtualBusPlan { controller, windows, functions }))
}

fn functions(options: &BuildOptions, space: &mut AddressPlan) -> Functions {
    let mut candidates = CandidateMap::new();
    for device in 0..SLOTS {
        let of_device = (0..8)
            .map(|function| (RequesterId::pci(BUSES.first, device, function), MESSAGE_ADDRESS));
        candidates.entry((device / GROUP).into()).or_default().extend(of_device);
    }
    let note = |note| space.note(format!("{NAME}: {note}"));
    Functions::plan(&options.population, &candidates, BUSES.first, (0, 1), note)
}

impl VirtualBusPlan {
    /// Creates the host end with the planned functions, and registers it to receive their messages.
    pub(super) fn listen(
        &self,
        model: &Arc<GicModel>,
        options: &BuildOptions,
        doorbells: &mut Doorbells,
    ) -> Result<Arc<HypervHost>, Refusal> {
        let cpus = u16::try_from(model.config().cpus.len()).unwrap_or(u16::MAX);
        let functions: Vec<_> = self.functions.requesters().collect();
        let migration = match options.migration {
            Migration::Never => HostMigration::Never,
            Migration::AtRandom { .. } => HostMigration::InFlight,
        };
        let injection = Injection::Spi(Arc::clone(model) as _);
        let host = HypervHost::new(injection, cpus, &functions, migration);
        let host = host.map_err(Refusal::VirtualBus)?;
        let receiver = gic::observed(Arc::clone(&host) as _, options.recorder.as_ref());
        doorbells.listen(MESSAGE_ADDRESS, receiver);
        Ok(host)
    }

    /// Builds the functions and attaches their windows to `bus`.
    pub(super) fn build(
        self,
        host: Arc<HypervHost>,
        doorbells: &Arc<Doorbells>,
        (recorder, bus): (Option<&Arc<Recorder>>, &mut Bus),
    ) -> Result<VirtualBusHardware, Overlap> {
        let Self { controller, windows, functions } = self;
        let identity = |requester: RequesterId| Some(DeviceId::new(requester.get()));
        let translator = Arc::new(Translator::new(Arc::clone(doorbells), identity));
        let upstream = populate::observed(translator, recorder);
        let root = functions.build(BUSES.first, &upstream);
        let bridge = Arc::new(HostBridge::new(windows, root));
        bus.attach("vpci ECAM", windows.ecam, bridge.ecam())?;
        bus.attach("vpci memory", windows.memory, bridge.memory())?;
        Ok(VirtualBusHardware { controller, bridge, host })
    }
}
