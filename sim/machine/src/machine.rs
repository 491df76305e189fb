//! A machine that has been built but isn't powered on yet.

mod address_plan;
mod controller_choice;
mod controllers;
pub(crate) mod gic;
mod hosts;
mod memory;
mod omissions;
mod options;
mod platform_devices;
mod populate;
mod population;
mod refusal;
mod shared_interrupts;
mod virtual_bus;

pub use controller_choice::ControllerChoice;
pub(crate) use controller_choice::is_virtual_bus;
pub(crate) use controllers::itses;
pub(crate) use gic::populated;
pub(crate) use hosts::Host;
pub use omissions::Omission;
pub use options::{
    BuildOptions, LpiDisabling, LpiNumbers, SecurityView, Snooping, TargetAddresses,
};
pub(crate) use platform_devices::DevicePlan;
pub use population::{
    ChosenDevices, ChosenFunction, DeviceConfig, DeviceInfo, FunctionPlacement, Population,
};
pub use refusal::Refusal;
pub(crate) use virtual_bus::{NAME as VIRTUAL_BUS, VirtualBusHardware};

use crate::cpu::SleepingCpus;
use crate::model::GicModel;
use address_plan::AddressPlan;
use doorbell_hardware::bus::{Bus, Doorbells};
use doorbell_hardware::pci::StoreConfig;
use doorbell_hardware::platform_device::PlatformDevice;
use doorbell_hardware::ram::Ram;
use gic_firmware::Description;
use msi_types::trace::Observed;
use msi_types::{Kick, RequesterId, SetLine};
use std::sync::Arc;
use vgic::Vcpu;

/// A machine that has been built but is not powered on yet.
pub struct Machine {
    pub(crate) name: String,
    pub(crate) description: Arc<Description>,
    /// Number of enabled CPUs that take part.
    pub(crate) cpus: usize,
    pub(crate) bus: Arc<Bus>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) model: Arc<GicModel>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) sleepers: Arc<SleepingCpus>,
    pub(crate) hosts: Vec<Host>,
    /// The host end of a virtual bus.
    pub(crate) virtual_bus: Option<VirtualBusHardware>,
    /// The platform devices.
    pub(crate) devices: Vec<(DevicePlan, Arc<PlatformDevice>)>,
    pub(crate) options: BuildOptions,
    pub(crate) notes: Vec<String>,
    pub(crate) omitted: Vec<Omission>,
}

impl Machine {
    /// Returns the machine's name, as reported by firmware.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of CPUs that will take part.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// Returns the machine's devices.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let hosts = self.hosts.iter().map(|host| {
            let described = self.description.hosts.get(host.index);
            (described.map(|host| host.id.to_string()).unwrap_or_default(), &host.bridge)
        });
        let buses = self.virtual_bus.iter().map(|bus| (VIRTUAL_BUS.to_owned(), &bus.bridge));
        let functions = hosts.chain(buses).flat_map(|(name, bridge)| {
            let functions = bridge.functions().iter();
            let senders = functions.filter(|function| function.store() != StoreConfig::None);
            senders.map(move |function| DeviceInfo {
                id: function_name(&name, function.requester()),
                config: DeviceConfig::Function(function.store()),
            })
        });
        let devices = self.devices.iter().map(|(plan, _)| DeviceInfo {
            id: plan.name.clone(),
            config: DeviceConfig::Platform(plan.config),
        });
        functions.chain(devices).collect()
    }

    /// Returns the notes on omitted devices and on regions that firmware does not place. Each note
    /// is one sentence.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Returns the name of a function of `host`, as used in reports.
pub(crate) fn function_name(host: &str, at: RequesterId) -> String {
    format!("{host} {:02x}:{:02x}.{}", at.pci_bus(), at.pci_device(), at.pci_function())
}

msi_types::debug_by!(Machine as "Machine", |it| {name: it.name, bus: it.bus});

/// Builds the machine that `description` describes, with its controllers at the described
/// addresses. Devices are created for every PCI host bridge and platform device that firmware
/// connects to one of these controllers.
///
/// # Errors
/// [`Refusal`] states why no machine that delivers messages can be built from the description, for
/// example because it has no usable MSI controller, or because no device refers to one.
pub fn build(description: &Description, options: &BuildOptions) -> Result<Machine, Refusal> {
    let mut description = description.clone();
    virtual_bus::enter(&mut description);
    let description = Arc::new(description);
    let gic = gic::plan(&description, options)?;
    let mut space = AddressPlan::default();
    gic.claim(&mut space)?;
    gic::note_windows(&description, &mut space);
    let regions = memory::plan(&description, &mut space)?;
    let hosts = hosts::plan(&description, options, &mut space)?;
    let functions = hosts.iter().map(hosts::HostPlan::functions).sum();
    let room = options.devices.map_or(usize::MAX, |all| all.saturating_sub(functions));
    let devices = platform_devices::plan(&description, options, room, &mut space)?;
    let planned = hosts.iter().map(hosts::HostPlan::name);
    let planned = planned.chain(devices.iter().map(|device| device.node.as_str()));
    let omitted = omissions::of(&description, options, &planned.collect());
    let virtual_bus = virtual_bus::plan(&description, options, &mut space)?;
    if hosts.is_empty() && devices.is_empty() && virtual_bus.is_none() {
        return Err(Refusal::NothingRings { controllers: gic.controllers });
    }
    let ram = Arc::new(Ram::new(&regions, gic::caches(&description, options)));
    let sleepers = Arc::new(SleepingCpus::new(gic.config.cpus.len()));
    let recorder = options.recorder.as_ref();
    let kick = Arc::clone(&sleepers);
    let kick: Arc<dyn Kick> = match recorder {
        Some(recorder) => Arc::new(Observed::new(kick, Arc::clone(recorder))),
        None => kick,
    };
    let (model, vcpus) = GicModel::new(gic.config, Arc::clone(&ram), kick)?;
    let mut doorbells = gic::doorbells(&model, &ram, recorder);
    let host = virtual_bus.as_ref().map(|plan| plan.listen(&model, options, &mut doorbells));
    let host = host.transpose()?;
    let doorbells = Arc::new(doorbells);
    let mut bus = Bus::default();
    gic::attach(&model, recorder, &mut bus)?;
    let wires: Arc<dyn SetLine> = Arc::clone(&model) as _;
    let hosts = hosts::build(&description, hosts, &doorbells, &wires, (recorder, &mut bus))?;
    let devices = platform_devices::build(devices, &doorbells, &mut bus)?;
    let virtual_bus = virtual_bus
        .zip(host)
        .map(|(plan, host)| plan.build(host, &doorbells, (recorder, &mut bus)))
        .transpose()?;
    Ok(Machine {
        name: description
            .model
            .as_ref()
            .map_or_else(|| "unnamed".to_owned(), |model| model.value.clone()),
        cpus: gic.cpus,
        description,
        bus: Arc::new(bus),
        ram,
        doorbells,
        model,
        vcpus,
        sleepers,
        hosts,
        virtual_bus,
        devices,
        options: options.clone(),
        notes: space.notes,
        omitted,
    })
}
