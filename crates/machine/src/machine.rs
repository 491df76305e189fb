//! A machine, built and not yet switched on.

mod address_plan;
mod controllers;
pub(crate) mod gic;
mod hosts;
mod memory;
mod platform_devices;
mod populate;
mod population;
mod refusal;
mod shared_interrupts;

pub use controllers::ControllerChoice;
pub(crate) use controllers::itses;
pub(crate) use gic::populated;
pub use population::{
    ChosenDevices, ChosenFunction, DeviceConfig, DeviceInfo, FunctionPlacement, Population,
};
pub use refusal::Refusal;

use crate::cpu::Sleepers;
use crate::fault::Fault;
use crate::migration::Migration;
use crate::model::GicModel;
use address_plan::AddressPlan;
use doorbell_hardware::bus::{Bus, Doorbells};
use doorbell_hardware::pci::{HostBridge, StoreConfig};
use doorbell_hardware::platform_device::PlatformDevice;
use doorbell_hardware::ram::Ram;
use gic_firmware::{ControllerIndex, Description};
use msi_types::{DeviceId, RequesterId};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use vgic::Vcpu;

/// How to build a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// At most so many CPUs; `None` = as many as the description has.
    pub cpus: Option<NonZeroU16>,
    /// Whose devices take part.
    pub controller: ControllerChoice,
    /// What they are like.
    pub population: Population,
    /// Which LPIs direct LPIs can be.
    pub lpis: LpiNumbers,
    /// Whether redistributors can stop taking LPIs.
    pub lpi_disabling: LpiDisabling,
    /// Which view of the distributor software gets.
    pub security: SecurityView,
    /// What ITS commands name as an interrupt's target.
    pub targets: TargetAddresses,
    /// Whether controllers look into the CPUs' caches.
    pub snooping: Snooping,
    /// What is wrong with it, to show that a run tells it.
    pub fault: Fault,
    /// Whether the interrupt controller moves while the machine runs.
    pub migration: Migration,
}

/// Which LPIs direct LPIs can be, whose numbers devices store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiNumbers {
    /// Those of 16 INTID bits.
    #[default]
    Short,
    /// Of 17 bits; those that 16 bits can name are somebody else's already.
    Long,
}

impl LpiNumbers {
    /// INTID bits of the machine.
    pub(crate) const fn id_bits(self) -> u8 {
        match self {
            Self::Short => 16,
            Self::Long => 17,
        }
    }
}

/// Whether `GICR_CTLR.EnableLPIs` can be cleared (`GICR_CTLR.CES`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiDisabling {
    /// It can.
    #[default]
    Possible,
    /// Once set, it stays.
    Impossible,
}

/// Which view of the distributor software gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SecurityView {
    /// The only one there is (`GICD_CTLR.DS` = 1).
    #[default]
    Single,
    /// The Non-secure one beside a Secure one (DS = 0), as below EL3 firmware.
    NonSecure,
}

/// What ITS commands name as an interrupt's target (`GITS_TYPER.PTA`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetAddresses {
    /// The redistributor's processor number (PTA = 0).
    #[default]
    ProcessorNumbers,
    /// The redistributor's physical address (PTA = 1).
    Physical,
}

/// Whether controllers look into the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Snooping {
    /// As the description says. Where it denies it (`dma-noncoherent`), the registers claim the opposite: that is
    /// why firmware has to say it.
    #[default]
    AsDescribed,
    /// None does, and their registers say so, whatever the description says.
    DeniedByRegisters,
}

/// A machine, built and not yet switched on.
pub struct Machine {
    pub(crate) name: String,
    pub(crate) description: Arc<Description>,
    /// How many of the description's enabled CPUs take part.
    pub(crate) cpus: usize,
    pub(crate) bus: Arc<Bus>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) model: Arc<GicModel>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) sleepers: Arc<Sleepers>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) devices: Vec<MachineDevice>,
    pub(crate) fault: Fault,
    pub(crate) migration: Migration,
    pub(crate) controller: ControllerChoice,
    pub(crate) lpis: LpiNumbers,
    pub(crate) notes: Vec<String>,
}

/// A host bridge of the machine.
pub(crate) struct Host {
    /// Its place in [`Description::hosts`].
    pub(crate) index: usize,
    pub(crate) bridge: Arc<HostBridge>,
}

/// A platform device of the machine.
pub(crate) struct MachineDevice {
    pub(crate) name: String,
    pub(crate) controller: ControllerIndex,
    pub(crate) id: DeviceId,
    /// Where its registers are.
    pub(crate) base: u64,
    pub(crate) hardware: Arc<PlatformDevice>,
}

impl Machine {
    /// What firmware calls the machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// CPUs that will take part.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// Who is on it.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let functions = self.hosts.iter().flat_map(|host| {
            let name = self.description.hosts.get(host.index).map(|host| host.id.to_string());
            let functions =
                host.bridge.functions().iter().filter(|function| function.store() != StoreConfig::None);
            functions.map(move |function| DeviceInfo {
                id: function_name(name.as_deref().unwrap_or_default(), function.requester()),
                config: DeviceConfig::Function(function.store()),
            })
        });
        let devices = self.devices.iter().map(|device| DeviceInfo {
            id: device.name.clone(),
            config: DeviceConfig::Platform(device.hardware.config()),
        });
        functions.chain(devices).collect()
    }

    /// What had to be invented or left out, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// What reports call the function of `host` at this place.
pub(crate) fn function_name(host: &str, at: RequesterId) -> String {
    format!("{host} {:02x}:{:02x}.{}", at.pci_bus(), at.pci_device(), at.pci_function())
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.name).field("bus", &self.bus).finish_non_exhaustive()
    }
}

/// Builds the machine that `description` describes: its real controllers at their addresses, and at every PCI host
/// bridge and platform device that can ring one of them somebody who does.
///
/// # Errors
/// There is nothing that could be delivered, or not on this kind of machine.
pub fn build(description: &Description, options: &BuildOptions) -> Result<Machine, Refusal> {
    let description = Arc::new(description.clone());
    let gic = gic::plan(&description, options)?;
    let mut space = AddressPlan::default();
    gic.claim(&mut space)?;
    gic::note_windows(&description, &mut space);
    let regions = memory::plan(&description, &mut space)?;
    let hosts = hosts::plan(&description, options, &mut space)?;
    let devices = platform_devices::plan(&description, options, &mut space)?;
    if hosts.is_empty() && devices.is_empty() {
        return Err(Refusal::NothingRings { controllers: gic.controllers });
    }
    let ram = Arc::new(Ram::new(&regions, gic::caches(&description, options)));
    let sleepers = Arc::new(Sleepers::new(gic.config.cpus.len()));
    let (model, vcpus) = GicModel::new(gic.config, Arc::clone(&ram), Arc::clone(&sleepers) as _)?;
    let doorbells = Arc::new(gic::doorbells(&model, &ram));
    let mut bus = Bus::default();
    gic::attach(&model, &mut bus)?;
    let hosts = hosts::build(&description, hosts, &doorbells, &mut bus)?;
    let devices = platform_devices::build(devices, &doorbells, &mut bus)?;
    Ok(Machine {
        name: description.model.as_ref().map_or_else(|| "unnamed".to_owned(), |model| model.value.clone()),
        cpus: gic.cpus,
        description,
        bus: Arc::new(bus),
        ram,
        doorbells,
        model,
        vcpus,
        sleepers,
        hosts,
        devices,
        fault: options.fault,
        migration: options.migration,
        controller: options.controller,
        lpis: options.lpis,
        notes: space.notes,
    })
}
