//! PCI host bridges, with their windows and the functions behind them.

use super::populate::{self, CandidateMap, Functions};
use super::{AddressPlan, BuildOptions, Refusal};
use crate::trace::Recorder;
use doorbell_hardware::bridge_msi::{BridgeMsi, BridgeMsiKind, GlueRegister, InBridge, Summary};
use doorbell_hardware::bus::{Bus, Doorbells, Overlap};
use doorbell_hardware::pci::{HostBridge, Windows};
use gic_firmware::{BusRange, ConfigAccess, ControllerKind, Description, PciHost, Region};
use msi_types::pci::MsiGate;
use msi_types::{Line, SetLine};
use std::sync::Arc;

/// Size of one bus's ECAM window.
const BUS: u64 = 1 << 20;
/// Size of the registers of a controller inside a bridge.
const REGISTERS: u64 = 0x1000;
/// Size of a memory window, which must hold the functions' tables and one window per bridge.
const MEMORY: u64 = 64 << 20;

/// A host bridge that has been planned but not built.
pub(super) struct HostPlan {
    index: usize,
    name: String,
    windows: Windows,
    functions: Functions,
    own: Option<OwnController>,
}

/// The controller inside a planned bridge.
struct OwnController {
    kind: BridgeMsiKind,
    registers: Region,
    lines: Vec<Line>,
    gate: Option<MsiGate>,
}

impl OwnController {
    /// Returns the page with the register that is the gate.
    fn glue(&self) -> Option<Region> {
        let MsiGate::Register { address, .. } = self.gate? else { return None };
        Region::new(address & !0xfff, REGISTERS)
    }
}

/// A host bridge in the machine.
pub(crate) struct Host {
    /// Index in [`Description::hosts`].
    pub(crate) index: usize,
    pub(crate) bridge: Arc<HostBridge>,
    /// The controller inside the bridge.
    pub(crate) own: Option<Arc<BridgeMsi>>,
}

impl HostPlan {
    /// Returns the number of functions, including bridges.
    pub(super) fn functions(&self) -> usize {
        self.functions.requesters().count()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Plans all enabled host bridges that have participating functions, until the functions are as
/// many as the options admit.
pub(super) fn plan(
    description: &Description,
    options: &BuildOptions,
    space: &mut AddressPlan,
) -> Result<Vec<HostPlan>, Refusal> {
    let mut plans: Vec<HostPlan> = Vec::new();
    let mut room = options.devices.unwrap_or(usize::MAX);
    for (index, functions) in functions(description, options, space) {
        let Some(host) = description.hosts.get(index).filter(|_| !functions.is_empty()) else {
            continue;
        };
        let Some(left) = room.checked_sub(functions.requesters().count()) else { continue };
        room = left;
        let buses = usable_buses(host);
        let name = host.id.to_string();
        let ecam = ecam(host, buses, space)?;
        let memory = space.invent("a PCI memory window", &format!("{name} memory"), MEMORY)?;
        let own = own_controller(description, options, host);
        if let Some(own) = &own {
            space.claim(&format!("{name} registers"), own.registers)?;
            own.glue().map_or(Ok(()), |page| space.claim(&format!("{name} glue"), page))?;
        }
        let windows = Windows { ecam, memory, buses };
        plans.push(HostPlan { index, name, windows, functions, own });
    }
    Ok(plans)
}

/// Returns the controller inside a bridge, if it takes part.
fn own_controller(
    description: &Description,
    options: &BuildOptions,
    host: &PciHost,
) -> Option<OwnController> {
    let controller =
        description.controller(host.own_controller.filter(|_| host.msi.is_empty())?)?;
    let kind = match controller.kind {
        ControllerKind::ImsiRx => BridgeMsiKind::ImsiRx,
        ControllerKind::MediatekGen3 => BridgeMsiKind::MediatekGen3,
        _ => return None,
    };
    let registers = Region::new(controller.registers.as_ref()?.base(), REGISTERS)?;
    let lines = controller.lines.iter().map(|line| Line::Spi(line.intid.get())).collect();
    let gate = controller.gate.as_ref().map(|gate| gate.value);
    options.controller.serves(controller).then_some(OwnController { kind, registers, lines, gate })
}

/// Returns each host's planned functions.
fn functions(
    description: &Description,
    options: &BuildOptions,
    space: &mut AddressPlan,
) -> Vec<(usize, Functions)> {
    let hosts = description.hosts.iter().enumerate().filter(|(_, host)| host.status.is_enabled());
    // Each host has at least one function.
    let hosts =
        hosts.filter(|(_, host)| populate::is_served(description, options.controller, host));
    let hosts = hosts.take(options.devices.unwrap_or(usize::MAX));
    let candidates = hosts.map(|(index, host)| {
        let buses = usable_buses(host);
        (index, buses.first, populate::candidates(description, options.controller, host, buses))
    });
    let served: Vec<(usize, u8, CandidateMap)> =
        candidates.filter(|(_, _, candidates)| !candidates.is_empty()).collect();
    let mut planned = Vec::new();
    for (turn, (index, first_bus, candidates)) in served.iter().enumerate() {
        let note = |note| {
            let host = description.hosts.get(*index);
            let name = host.map_or_else(String::new, |host| host.id.to_string());
            space.note(format!("{name}: {note}"));
        };
        let turn = (turn, served.len());
        let functions = Functions::plan(&options.population, candidates, *first_bus, turn, note);
        planned.push((*index, functions));
    }
    planned
}

/// Returns the buses covered by the host's configuration space.
fn usable_buses(host: &PciHost) -> BusRange {
    let BusRange { first, last } = host.buses.value;
    let Some(size) = described_ecam(host).map(Region::size) else {
        return BusRange { first, last };
    };
    let reached = u64::from(first) + (size / BUS).saturating_sub(1);
    BusRange { first, last: u8::try_from(reached).unwrap_or(u8::MAX).min(last) }
}

/// Returns the ECAM window stated by firmware, if it covers at least one bus.
fn described_ecam(host: &PciHost) -> Option<Region> {
    match host.config.as_ref()?.value {
        ConfigAccess::Ecam(region) if region.size() >= BUS => Some(region),
        ConfigAccess::Ecam(_) | ConfigAccess::Registers(_) => None,
    }
}

/// Returns the ECAM window stated by firmware, or chooses one.
fn ecam(host: &PciHost, buses: BusRange, space: &mut AddressPlan) -> Result<Region, Refusal> {
    let size = (u64::from(buses.last - buses.first) + 1) * BUS;
    let name = format!("{} ECAM", host.id);
    let described = described_ecam(host).and_then(|region| Region::new(region.base(), size));
    if let Some(region) = described.filter(|region| space.try_claim(&name, *region)) {
        return Ok(region);
    }
    let invented = space.invent("an ECAM window", &name, size)?;
    let reason = match described {
        Some(region) => format!("its window at {region} overlaps another region"),
        None => "its configuration space is not accessed through ECAM".to_owned(),
    };
    space.note(format!("{}: {reason}; an ECAM window was placed at {invented}", host.id));
    Ok(invented)
}

/// Builds the bridges and attaches their windows to the bus.
pub(super) fn build(
    description: &Arc<Description>,
    plans: Vec<HostPlan>,
    doorbells: &Arc<Doorbells>,
    wires: &Arc<dyn SetLine>,
    (recorder, bus): (Option<&Arc<Recorder>>, &mut Bus),
) -> Result<Vec<Host>, Overlap> {
    let mut hosts = Vec::new();
    for HostPlan { index, name, windows, functions, own } in plans {
        let mut upstream = populate::translator(description, index, doorbells);
        let mut inside = None;
        if let Some(own) = own {
            let glue = own.glue();
            let OwnController { kind, registers, lines, gate } = own;
            // Boards with several bridges have several behaviors.
            let summary = Summary::ALL.into_iter().cycle().nth(index).unwrap_or_default();
            let controller = BridgeMsi::new(kind, lines, Arc::clone(wires));
            let controller = Arc::new(controller.with_summary(summary).with_gate(gate));
            if let Some(page) = glue {
                let register = Arc::new(GlueRegister(Arc::clone(&controller)));
                bus.attach(&format!("{name} glue"), page, register)?;
            }
            bus.attach(&format!("{name} registers"), registers, Arc::clone(&controller) as _)?;
            upstream = Arc::new(InBridge::new(Arc::clone(&controller), upstream));
            inside = Some(controller);
        }
        let upstream = populate::observed(upstream, recorder);
        let root = functions.build(windows.buses.first, &upstream);
        let bridge = Arc::new(HostBridge::new(windows, root));
        bus.attach(&format!("{name} ECAM"), windows.ecam, bridge.ecam())?;
        bus.attach(&format!("{name} memory"), windows.memory, bridge.memory())?;
        hosts.push(Host { index, bridge, own: inside });
    }
    Ok(hosts)
}
