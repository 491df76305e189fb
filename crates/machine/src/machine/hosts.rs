//! PCI host bridges: where they answer, and who is behind them.

use super::populate::{self, Population};
use super::{ControllerChoice, Host, Refusal, Space};
use crate::bus::{Bus, Doorbells, Overlap};
use crate::pci::{HostBridge, Windows};
use gic_firmware::{BusRange, ConfigSpace, Description, PciHost, Region};
use std::sync::Arc;

/// ECAM per bus.
const BUS: u64 = 1 << 20;
/// Enough for the functions' tables, and a window for each bridge.
const MEMORY: u64 = 64 << 20;

/// A host bridge, planned.
pub(super) struct HostPlan {
    index: usize,
    name: String,
    windows: Windows,
    population: Population,
}

/// Plans every enabled host bridge whose functions take part.
pub(super) fn plan(
    description: &Description,
    choice: ControllerChoice,
    space: &mut Space,
) -> Result<Vec<HostPlan>, Refusal> {
    let mut plans = Vec::new();
    for (index, host) in description.hosts.iter().enumerate().filter(|(_, host)| host.status.is_enabled()) {
        let buses = usable_buses(host);
        let population = Population::plan(description, choice, host, buses);
        if population.is_empty() {
            continue;
        }
        let name = host.id.to_string();
        let ecam = ecam(host, buses, space)?;
        let memory = space.invent("a PCI memory window", &format!("{name} memory"), MEMORY)?;
        plans.push(HostPlan { index, name, windows: Windows { ecam, memory, buses }, population });
    }
    Ok(plans)
}

/// The buses that its configuration space reaches.
fn usable_buses(host: &PciHost) -> BusRange {
    let BusRange { first, last } = host.buses.value;
    let Some(size) = described_ecam(host).map(Region::size) else { return BusRange { first, last } };
    let reached = u64::from(first) + (size / BUS).saturating_sub(1);
    BusRange { first, last: u8::try_from(reached).unwrap_or(u8::MAX).min(last) }
}

/// The ECAM window that firmware states, if it is one and holds a bus.
fn described_ecam(host: &PciHost) -> Option<Region> {
    match host.config.as_ref()?.value {
        ConfigSpace::Ecam(region) if region.size() >= BUS => Some(region),
        ConfigSpace::Ecam(_) | ConfigSpace::Registers(_) => None,
    }
}

/// Where firmware has it, else invented.
fn ecam(host: &PciHost, buses: BusRange, space: &mut Space) -> Result<Region, Refusal> {
    let size = (u64::from(buses.last - buses.first) + 1) * BUS;
    let name = format!("{} ECAM", host.id);
    let described = described_ecam(host).and_then(|region| Region::new(region.base(), size));
    if let Some(region) = described.filter(|region| space.try_claim(&name, *region)) {
        return Ok(region);
    }
    let invented = space.invent("an ECAM window", &name, size)?;
    let reason = match described {
        Some(region) => format!("its window at {region} is taken"),
        None => "its own way to configuration space is not ECAM".to_owned(),
    };
    space.note(format!("{}: {reason}; an ECAM window was put at {invented}", host.id));
    Ok(invented)
}

/// Builds the bridges and lets them answer on the bus.
pub(super) fn build(
    description: &Arc<Description>,
    plans: Vec<HostPlan>,
    doorbells: &Arc<Doorbells>,
    bus: &mut Bus,
) -> Result<Vec<Host>, Overlap> {
    let mut hosts = Vec::new();
    for HostPlan { index, name, windows, population } in plans {
        let upstream = populate::translator(description, index, doorbells);
        let root = population.build(windows.buses.first, &upstream);
        let bridge = Arc::new(HostBridge::new(windows, root));
        bus.attach(&format!("{name} ECAM"), windows.ecam, bridge.ecam())?;
        bus.attach(&format!("{name} memory"), windows.memory, bridge.memory())?;
        hosts.push(Host { index, bridge });
    }
    Ok(hosts)
}
