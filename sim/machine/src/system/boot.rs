//! Brings up the drivers in the same order as a kernel.

use super::device::{Device, DiscoveredDevice};
use super::hardware::DeviceHardware;
use super::{Irqchip, System, VirtualBus, VirtualSlot, turn_on};
use crate::cpu::{CpuCore, CpuRecords, Cpus};
use crate::error::RunError;
use crate::fault::{Fault, FaultInjector};
use crate::machine::{
    DevicePlan, Host, LpiNumbers, Machine, VIRTUAL_BUS, VirtualBusHardware, function_name,
    is_virtual_bus, populated,
};
use crate::migration::Migrator;
use crate::sequential::GicCpus;
use doorbell_hardware::pci::enumerate::{FoundFunction, enumerate};
use doorbell_hardware::pci::{Function, HostBridge, StoreConfig};
use doorbell_hardware::platform::{CpuBus, MachinePlatform};
use doorbell_hardware::platform_device::PlatformStore;
use gic_arch::Lpi;
use gic_bringup::config::RootConfig;
use gic_bringup::{BringUpError, ControllerError, MsiController, NoParent, Options};
use gic_driver::Alignment;
use gic_driver::redistributor::walk_redistributors;
use gic_firmware::{Controller, ControllerIndex, Description};
use irq_domain::Host as _;
use msi_types::{Cpu, DeviceId, RequesterId};
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

/// Requester ID of a platform device with a separate parent, which no other requester uses.
const ALONE: RequesterId = RequesterId::new(0);

/// The parts of a powered-on machine that aren't passed to the drivers.
pub(crate) struct PoweredMachine {
    pub(crate) cores: Vec<Arc<CpuCore>>,
    pub(crate) records: CpuRecords,
    pub(crate) platform: Arc<MachinePlatform>,
    /// Migrates the model, if migration is enabled.
    pub(crate) migrator: Option<Arc<Migrator>>,
}

impl PoweredMachine {
    /// Powers on `machine`. The machine's CPUs execute code, but no controller is set up yet.
    pub(crate) fn on(machine: &mut Machine) -> Self {
        let records = CpuRecords {
            recorder: machine.options.recorder.clone(),
            ..CpuRecords::new(machine.cpus)
        };
        let mut vcpus = std::mem::take(&mut machine.vcpus).into_iter();
        let core = |(vcpu, cpu)| Arc::new(CpuCore::new(Cpu::new(cpu), vcpu, &records));
        let cores: Vec<_> = vcpus.by_ref().take(machine.cpus).zip(0..).map(core).collect();
        machine.model.keep_idle(vcpus);
        let host = machine.virtual_bus.as_ref().map(|bus| Arc::clone(&bus.host));
        let migrator = Migrator::new(
            machine.options.migration,
            &machine.model,
            &cores,
            host,
            machine.options.recorder.clone(),
        );
        let (bus, ram) = (Arc::clone(&machine.bus), Arc::clone(&machine.ram));
        let platform = MachinePlatform::new(bus, ram);
        let platform = Arc::new(match machine.options.fault {
            Fault::NeverPublishes => platform.without_publication(),
            _ => platform,
        });
        Self { cores, records, platform, migrator }
    }

    /// Makes the CPUs run on the caller's thread.
    pub(crate) fn sequential(&self) -> GicCpus {
        let Self { cores, records, platform, migrator } = self;
        GicCpus::new(cores.clone(), migrator.clone(), Arc::clone(&records.unhandled), platform)
    }
}

/// Discovers and sets up all controllers and devices, including the devices' vectors.
pub(crate) fn boot(
    machine: Machine,
    powered: &PoweredMachine,
    cpus: &dyn Cpus,
) -> Result<System, RunError> {
    let description = Arc::clone(&machine.description);
    let irqchip = Arc::new(bring_up(&machine, powered, cpus.count())?);
    if machine.options.lpis == LpiNumbers::Long {
        take_short(&irqchip)?;
    }
    for (cpu, core) in irqchip.cpus().zip(&powered.cores) {
        core.serve(irqchip.interrupts());
        turn_on(&irqchip, cpus, cpu).map_err(|reason| bring_up_error(&description, &reason))?;
    }
    let mut system = System {
        description,
        platform: Arc::clone(&powered.platform),
        interrupts: irqchip.interrupts().clone(),
        irqchip,
        devices: Vec::new(),
        virtual_bus: None,
        records: powered.records.clone(),
        faults: Arc::new(FaultInjector::new(machine.options.fault)),
        ram: machine.ram,
        model: machine.model,
        bridges: machine.hosts.iter().filter_map(|host| host.own.clone()).collect(),
        doorbells: machine.doorbells,
        cpus: cpus.count(),
        notes: machine.notes,
        omitted: machine.omitted,
        name: machine.name,
        surprises: AtomicU64::new(0),
        cores: powered.cores.clone(),
        tasks: RwLock::new(()),
    };
    for host in &machine.hosts {
        let devices = pci_devices(&system, host)?;
        system.devices.extend(devices);
    }
    if let Some(hardware) = &machine.virtual_bus {
        let devices = virtual_devices(&mut system, hardware)?;
        system.devices.extend(devices);
    }
    for (DevicePlan { name, route, registers, .. }, device) in machine.devices {
        let store = PlatformStore::new(system.platform.cpu_bus(), registers.base());
        let config = DiscoveredDevice {
            name,
            hardware: DeviceHardware::Platform { device, store: Arc::new(store) },
            requester: ALONE,
            controller: route.controller,
            device_id: route.device_id,
        };
        let parent = system.irqchip.device_parent(route.controller, ALONE, route.device_id);
        let parent = parent.map_err(|reason| reason.to_string());
        system.devices.push(Device::new(config, parent, &system.faults));
    }
    set_up_devices(&system)?;
    Ok(system)
}

/// Brings up the interrupt controllers, as a kernel does on its boot CPU.
fn bring_up(machine: &Machine, powered: &PoweredMachine, cpus: usize) -> Result<Irqchip, RunError> {
    let description = populated(&machine.description);
    let failed = |reason: &dyn ToString| bring_up_error(&machine.description, reason);
    let drives =
        |it: &Controller| machine.options.controller.serves(it) && !is_virtual_bus(&it.kind);
    let options = Options::bare_metal()
        .with_max_cpus(cpus)
        .with_lpi_id_bits(Some(machine.options.lpis.id_bits()))
        .with_drives(&drives)
        .with_resend_observer(Some(Arc::clone(&powered.records.routes) as _));
    wake_redistributors(&powered.platform, &description, &options)
        .map_err(|error| failed(&error))?;
    let (platform, host) = (Arc::clone(&powered.platform), Arc::clone(&powered.platform) as _);
    let irqchip =
        Irqchip::with(platform, host, description, &options).map_err(|error| failed(&error))?;
    let refused = irqchip.refused().find(|(_, reason)| *reason != ControllerError::LeftOut);
    match refused.and_then(|(index, reason)| Some((machine.description.controller(index)?, reason)))
    {
        None => Ok(irqchip),
        Some((controller, reason)) => Err(RunError::BringUp {
            controller: controller.id.to_string(),
            reason: reason.to_string(),
        }),
    }
}

fn bring_up_error(description: &Description, reason: &dyn ToString) -> RunError {
    let gic =
        description.gic.as_ref().map_or_else(|| "the GIC".to_owned(), |gic| gic.id.to_string());
    RunError::BringUp { controller: gic, reason: reason.to_string() }
}

/// Permanently allocates all LPIs below 2^16, so that direct LPIs have higher numbers.
fn take_short(irqchip: &Irqchip) -> Result<(), RunError> {
    let mut drivers = irqchip.controllers();
    let direct_lpi = drivers.any(|(_, driver)| matches!(driver, MsiController::DirectLpi(_)));
    let Some(gic) = irqchip.gic().v3().filter(|_| direct_lpi) else { return Ok(()) };
    let short = Lpi::FIRST.get()..1 << 16;
    let count = NonZeroU32::new(short.end - short.start).unwrap_or(NonZeroU32::MIN);
    let taken = gic.lpis().and_then(|lpis| lpis.allocate_within(count, Alignment::ONE, short));
    taken.map(drop).map_err(|error| failed("allocating the LPIs below 2^16", &error))
}

/// Compatible string of the GIC on boards whose firmware owns `GICR_WAKER`. Kernels must not access
/// the register (the driver's erratum `WakerUnusable`); firmware wakes the redistributors.
const FIRMWARE_KEEPS_WAKER: &str = "qcom,msm8996-gic-v3";

/// Wakes the redistributors, as firmware on a board that owns `GICR_WAKER` would.
pub(super) fn wake_redistributors(
    platform: &Arc<MachinePlatform>,
    description: &Description,
    options: &Options<'_>,
) -> Result<(), BringUpError> {
    let RootConfig::V3(config) = RootConfig::new(description, options)? else { return Ok(()) };
    if !description.quirk_names().any(|name| name == FIRMWARE_KEEPS_WAKER) {
        return Ok(());
    }
    for region in config.redistributors() {
        for redistributor in walk_redistributors(&**platform, *region) {
            redistributor?.wake(&**platform)?;
        }
    }
    Ok(())
}

/// Returns all functions behind host bridges that have a message store.
fn pci_devices(system: &System, host: &Host) -> Result<Vec<Device>, RunError> {
    let Some(described) = system.description.hosts.get(host.index) else { return Ok(Vec::new()) };
    let bus = system.platform.cpu_bus();
    let mut devices = Vec::new();
    for found in found(&bus, &host.bridge)? {
        let requester = found.requester();
        let id = requester.function;
        let Some(function) = function_at(&host.bridge, id) else { continue };
        let route = system.description.route(described, requester.at_host());
        let config = DiscoveredDevice {
            name: function_name(described.id.as_str(), id),
            hardware: DeviceHardware::Function { function, found: Box::new(found), slot: None },
            requester: requester.at_host(),
            controller: route.map_or(ControllerIndex::new(usize::MAX), |route| route.controller),
            device_id: route.map(|route| route.device_id).unwrap_or_default(),
        };
        let parent = system.irqchip.pci_parent(described, requester);
        let parent = parent.map_err(|reason| not_driven(&system.description, reason));
        devices.push(Device::new(config, parent, &system.faults));
    }
    Ok(devices)
}

fn found(bus: &CpuBus, bridge: &HostBridge) -> Result<Vec<FoundFunction>, RunError> {
    enumerate(bus, bridge.windows()).map_err(|reason| failed("finding PCI functions", &reason))
}

/// Returns all functions on the virtual bus that have a message store.
fn virtual_devices(
    system: &mut System,
    hardware: &VirtualBusHardware,
) -> Result<Vec<Device>, RunError> {
    let wired = system.irqchip.gic().wired();
    let bus = VirtualBus::open(hardware, &system.platform, wired)
        .map_err(|reason| failed("opening the virtual bus", &reason))?;
    let mut devices = Vec::new();
    for found in found(&system.platform.cpu_bus(), &hardware.bridge)? {
        let id = found.requester().function;
        let Some(function) = function_at(&hardware.bridge, id) else { continue };
        let slot = Some(VirtualSlot::new(id, &bus));
        let config = DiscoveredDevice {
            name: function_name(VIRTUAL_BUS, id),
            hardware: DeviceHardware::Function { function, found: Box::new(found), slot },
            requester: id,
            controller: bus.controller,
            device_id: DeviceId::new(id.get()),
        };
        devices.push(Device::new(config, Ok(bus.parent()), &system.faults));
    }
    system.virtual_bus = Some(bus);
    Ok(devices)
}

fn not_driven(description: &Description, reason: NoParent) -> String {
    match reason {
        NoParent::NotInUse(index, _) => match description.controller(index) {
            Some(controller) => {
                format!("it signals through {}, a {}", controller.id, controller.kind)
            }
            None => reason.to_string(),
        },
        _ => reason.to_string(),
    }
}

fn function_at(bridge: &HostBridge, requester: RequesterId) -> Option<Arc<Function>> {
    let functions = bridge.functions().iter();
    let mut here = functions.filter(|function| function.store() != StoreConfig::None);
    here.find(|function| function.requester() == requester).cloned()
}

/// Attaches all devices before any device allocates vectors, because devices that share a DeviceID
/// also share a translation table.
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
    debug_assert!(system.platform.current_cpu().is_none(), "tasks do not run on a CPU");
    Ok(())
}

fn failed(operation: &str, reason: &dyn ToString) -> RunError {
    RunError::Driver { operation: operation.to_owned(), reason: reason.to_string() }
}
