//! Bringing the drivers up, in the order of a kernel.

use super::device::{Device, DeviceHardware, DiscoveredDevice, Probe};
use super::{Controllers, System};
use crate::cpu::{CpuCore, CpuRecords, Cpus, Gic, call};
use crate::error::RunError;
use crate::fault::{Fault, Faults};
use crate::machine::{Host, LpiNumbers, Machine, function_name};
use crate::migration::Migrator;
use doorbell_hardware::pci::enumerate::enumerate;
use doorbell_hardware::pci::{Function, StoreConfig};
use doorbell_hardware::platform::MachinePlatform;
use gic_driver::its::{IdMap, IdRange};
use gic_driver::redistributor::walk_redistributors;
use gic_driver::{GicConfig, GicError, PhysicalRegion, RedistributorRegion, TableAccess};
use gic_firmware::{ControllerIndex, Description, PciHost, Route, Via};
use irq_domain::{Config, Host as _, Interrupts};
use msi_types::{Cpu, MsiParent, RequesterId};
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The requester ID by which a platform device's own parent knows it: there is nobody else.
const ALONE: RequesterId = RequesterId::new(0);

/// The parts of a machine that the drivers do not get.
pub(crate) struct PoweredMachine {
    pub(crate) cores: Vec<Arc<CpuCore>>,
    pub(crate) records: CpuRecords,
    pub(crate) platform: Arc<MachinePlatform>,
    /// Moves the model, if it moves.
    pub(crate) migrator: Option<Arc<Migrator>>,
}

impl PoweredMachine {
    /// Powers `machine` on: its CPUs execute, nothing is set up.
    pub(crate) fn on(machine: &mut Machine) -> Self {
        let records = CpuRecords::new(machine.cpus);
        let mut vcpus = std::mem::take(&mut machine.vcpus).into_iter();
        let core = |(vcpu, cpu)| Arc::new(CpuCore::new(Cpu::new(cpu), vcpu, &records));
        let cores: Vec<_> = vcpus.by_ref().take(machine.cpus).zip(0..).map(core).collect();
        machine.model.keep_idle(vcpus);
        let migrator = Migrator::new(machine.migration, &machine.model, &cores);
        let (bus, ram) = (Arc::clone(&machine.bus), Arc::clone(&machine.ram));
        let platform = MachinePlatform::new(bus, ram);
        let platform = Arc::new(match machine.fault {
            Fault::NeverPublishes => platform.without_publication(),
            _ => platform,
        });
        Self { cores, records, platform, migrator }
    }
}

/// Discovers and sets up everything; every device gets its vectors.
pub(crate) fn boot(machine: Machine, powered: &PoweredMachine, cpus: &dyn Cpus) -> Result<System, RunError> {
    let description = Arc::clone(&machine.description);
    let gic = bring_up_gic(&description, &powered.platform, cpus, machine.lpis)?;
    let controllers = Controllers::bring_up(&machine, &gic, cpus.count(), &powered.records.routes)?;
    let count = u16::try_from(cpus.count()).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
    let host = Arc::clone(&powered.platform) as _;
    let interrupts = Interrupts::new(Config::new(count, host).with_wired(Arc::clone(&gic) as _));
    let interrupts = Arc::new(interrupts.map_err(|error| failed("making the interrupt core", &error))?);
    for (cpu, core) in (0..).map(Cpu::new).zip(&powered.cores) {
        core.serve(&interrupts);
        interrupts.cpu_online(cpu, |_| {}).map_err(|error| failed("bringing a CPU on line", &error))?;
    }
    let mut system = System {
        description,
        platform: Arc::clone(&powered.platform),
        gic,
        controllers,
        interrupts,
        devices: Vec::new(),
        records: powered.records.clone(),
        faults: Arc::new(Faults::new(machine.fault)),
        ram: machine.ram,
        model: machine.model,
        doorbells: machine.doorbells,
        cpus: cpus.count(),
        notes: machine.notes,
        name: machine.name,
        surprises: AtomicU64::new(0),
    };
    for host in &machine.hosts {
        let devices = pci_devices(&system, host);
        system.devices.extend(devices);
    }
    for device in machine.devices {
        let map = IdMap::single(ALONE, device.id);
        let config = DiscoveredDevice {
            name: device.name,
            hardware: DeviceHardware::Platform(device.hardware),
            probe: Probe::Platform { base: device.base },
            requester: ALONE,
            controller: device.controller,
            device_id: device.id,
        };
        let parent = system.controllers.parent(device.controller, || map);
        system
            .devices
            .push(Device::new(config, parent.ok_or_else(|| "its controller is not in use".to_owned())));
    }
    set_up_devices(&system)?;
    Ok(system)
}

fn bring_up_gic(
    description: &Description,
    platform: &Arc<MachinePlatform>,
    cpus: &dyn Cpus,
    lpis: LpiNumbers,
) -> Result<Arc<Gic>, RunError> {
    let Some(described) = &description.gic else {
        return Err(RunError::BringUp {
            controller: "the GIC".to_owned(),
            reason: "not described".to_owned(),
        });
    };
    let failed = |reason: &dyn ToString| RunError::BringUp {
        controller: described.id.to_string(),
        reason: reason.to_string(),
    };
    let config = gic_config(description, described, cpus.count(), lpis);
    if described.compatible.iter().any(|name| name == FIRMWARE_KEEPS_WAKER) {
        wake_redistributors(platform, &config.redistributors).map_err(|error| failed(&error))?;
    }
    let gic = Gic::new(Arc::clone(platform), config).map_err(|error| failed(&error))?;
    let gic = Arc::new(gic);
    for cpu in gic.cpus() {
        let theirs = Arc::clone(&gic);
        match call(cpus, cpu, move |core| core.turn_on(&theirs)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(failed(&error)),
            None => return Err(failed(&format_args!("CPU {cpu} does not answer"))),
        }
    }
    Ok(gic)
}

/// The GIC of boards whose firmware keeps `GICR_WAKER`: kernels leave it alone (the driver's erratum
/// `WakerUnusable`), and firmware wakes the redistributors.
const FIRMWARE_KEEPS_WAKER: &str = "qcom,msm8996-gic-v3";

/// As such a board's firmware does it.
fn wake_redistributors(
    platform: &Arc<MachinePlatform>,
    regions: &[RedistributorRegion],
) -> Result<(), GicError> {
    for region in regions {
        for redistributor in walk_redistributors(&**platform, *region) {
            redistributor?.wake(&**platform)?;
        }
    }
    Ok(())
}

/// What firmware says of the GIC, for the driver.
fn gic_config(
    description: &Description,
    described: &gic_firmware::Gic,
    cpus: usize,
    lpis: LpiNumbers,
) -> GicConfig {
    let affinities: Vec<_> = description.enabled_cpus().map(|cpu| cpu.affinity.value).take(cpus).collect();
    let region = |base, bytes| PhysicalRegion { base, bytes };
    let redistributors =
        crate::machine::populated_redistributors(described, description.enabled_cpus().count());
    let redistributors = redistributors.into_iter().map(|stated| RedistributorRegion {
        region: region(stated.base(), stated.size()),
        stride: described.redistributor_stride.as_ref().map(|stride| stride.value),
    });
    GicConfig {
        table_access: match described.coherence.value {
            gic_firmware::Coherence::ByRegister => TableAccess::Negotiate,
            gic_firmware::Coherence::NonCoherent => TableAccess::NonCoherent,
        },
        lpi_id_bits: Some(lpis.id_bits()),
        machine: description.quirk_names().map(str::to_owned).collect(),
        ..GicConfig::new(described.distributor.base(), redistributors.collect(), affinities)
    }
}

/// Every function behind a host bridge that has a message store.
fn pci_devices(system: &System, host: &Host) -> Vec<Device> {
    let Some(described) = system.description.hosts.get(host.index) else { return Vec::new() };
    let bus = system.platform.cpu_bus();
    let mut parents: BTreeMap<ControllerIndex, Arc<dyn MsiParent>> = BTreeMap::new();
    let mut devices = Vec::new();
    for found in enumerate(&bus, host.bridge.windows()) {
        let Some(function) = function_at(host, found.requester) else { continue };
        let (id, alias) = (found.requester, found.alias);
        let route = system.description.route(described, alias);
        let config = DiscoveredDevice {
            name: function_name(described.id.as_str(), id),
            hardware: DeviceHardware::Function(function),
            probe: Probe::Pci(Box::new(found)),
            requester: alias,
            controller: route.map_or(ControllerIndex::new(usize::MAX), |route| route.controller),
            device_id: route.map(|route| route.device_id).unwrap_or_default(),
        };
        let parent = route.map_err(|error| error.to_string()).and_then(|route| {
            let map = || id_map(&system.description, described, route, alias);
            let shared =
                parents.get(&route.controller).filter(|_| !matches!(route.via, Via::ParentAfterMap(_)));
            if let Some(parent) = shared {
                return Ok(Arc::clone(parent));
            }
            let made = system.controllers.parent(route.controller, map);
            let made = made.ok_or_else(|| not_driven(system, route))?;
            if !matches!(route.via, Via::ParentAfterMap(_)) {
                parents.insert(route.controller, Arc::clone(&made));
            }
            Ok(made)
        });
        devices.push(Device::new(config, parent));
    }
    devices
}

fn not_driven(system: &System, route: Route) -> String {
    match system.description.controller(route.controller) {
        Some(controller) => format!("it signals through {}, a {}", controller.id, controller.kind),
        None => "its controller is not described".to_owned(),
    }
}

/// What firmware says of the host's requesters at this controller.
fn id_map(description: &Description, host: &PciHost, route: Route, requester: RequesterId) -> IdMap {
    // Requesters that the map leaves out are not masked.
    if matches!(route.via, Via::ParentAfterMap(_)) {
        return IdMap::single(requester, route.device_id);
    }
    let spans = description.host_spans(host).into_iter().filter(|span| span.controller == route.controller);
    let ranges = spans.map(|span| IdRange {
        first_requester: span.rid_base,
        length: span.length,
        first_device: span.device_id_base,
    });
    let map = IdMap::new(ranges.collect());
    match &host.msi.mask {
        Some(mask) if host.msi.map.is_some() => map.with_mask(mask.value),
        _ => map,
    }
}

fn function_at(host: &Host, requester: RequesterId) -> Option<Arc<Function>> {
    let functions = host.bridge.functions().iter();
    let mut here = functions.filter(|function| function.store() != StoreConfig::None);
    here.find(|function| function.requester() == requester).cloned()
}

/// Attaches every device before any gets vectors: those that share a DeviceID share one table.
fn set_up_devices(system: &System) -> Result<(), RunError> {
    for device in &system.devices {
        device.attach(system);
    }
    for device in &system.devices {
        device.activate(system);
    }
    if system.devices.iter().all(|device| device.vectors().is_empty()) {
        let reason = system.devices.iter().find_map(Device::refused).unwrap_or_default();
        return Err(RunError::NoVectors { devices: system.devices.len(), reason });
    }
    debug_assert!(system.platform.current_cpu().is_none(), "tasks run on no CPU");
    Ok(())
}

fn failed(operation: &str, reason: &dyn ToString) -> RunError {
    RunError::Driver { operation: operation.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gic_arch::Iidr;
    use gic_driver::errata::{self, Erratum, Frame};
    use gic_firmware::{Cpu as FirmwareCpu, Gic as FirmwareGic, Region, devicetree};

    /// The errata of a GIC-600's redistributors on the machine whose devicetree has these root
    /// names.
    fn errata_of(names: &[&str]) -> Vec<Erratum> {
        let region = |base, size| Region::new(base, size).unwrap();
        let described = Description {
            compatible: names.iter().map(|name| (*name).to_owned()).collect(),
            gic: Some(FirmwareGic::v3(
                "/gic",
                region(0xfd40_0000, 0x1_0000),
                [region(0xfd46_0000, 0x10_0000)],
            )),
            cpus: vec![FirmwareCpu::new("/cpus/cpu@0", gic_arch::Affinity::default())],
            ..Description::default()
        };
        let read = devicetree::parse(&devicetree::write(&described).unwrap()).unwrap();
        let config = gic_config(&read, read.gic.as_ref().unwrap(), 1, LpiNumbers::Short);
        let machine: Vec<_> = config.machine.iter().map(String::as_str).collect();
        let iidr = Iidr::from(0x0201_743b);
        errata::matching(Frame::Redistributor, iidr, &machine).map(|entry| entry.erratum).collect()
    }

    #[test]
    fn a_devicetree_names_the_machine_for_errata() {
        assert_eq!(errata_of(&["radxa,rock-5b", "rockchip,rk3588"]), [Erratum::TablesNotCoherent]);
        assert_eq!(errata_of(&["pine64,quartz64-a", "rockchip,rk3566"]), [Erratum::TablesBelow4GiB]);
        assert_eq!(errata_of(&["linux,dummy-virt"]), []);
    }
}
