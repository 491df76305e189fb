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

/// Options for building a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// At most so many CPUs; `None` = as many as the description has.
    pub cpus: Option<NonZeroU16>,
    /// The controllers whose devices take part.
    pub controller: ControllerChoice,
    /// The parameters of the devices.
    pub population: Population,
    /// The INTIDs of direct LPIs.
    pub lpis: LpiNumbers,
    /// The ability of redistributors to stop taking LPIs.
    pub lpi_disabling: LpiDisabling,
    /// The view of the distributor that software gets.
    pub security: SecurityView,
    /// The form in which ITS commands name a redistributor.
    pub targets: TargetAddresses,
    /// The coherence of the controllers' table accesses.
    pub snooping: Snooping,
    /// A defect to put in, to show that a run reports it.
    pub fault: Fault,
    /// The migrations of the interrupt controller during the run.
    pub migration: Migration,
}

/// The INTIDs of direct LPIs, which devices store.
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

/// The ability to clear `GICR_CTLR.EnableLPIs` (`GICR_CTLR.CES`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiDisabling {
    /// It can.
    #[default]
    Possible,
    /// Once set, it stays.
    Impossible,
}

/// The view of the distributor that software gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SecurityView {
    /// The only one there is (`GICD_CTLR.DS` = 1).
    #[default]
    Single,
    /// The Non-secure one beside a Secure one (DS = 0), as below EL3 firmware.
    NonSecure,
}

/// The form in which ITS commands name a redistributor (`GITS_TYPER.PTA`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetAddresses {
    /// The redistributor's processor number (PTA = 0).
    #[default]
    ProcessorNumbers,
    /// The redistributor's physical address (PTA = 1).
    Physical,
}

/// The coherence of the controllers' table accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Snooping {
    /// As the description says. Where it denies it (`dma-noncoherent`), the registers claim the
    /// opposite: that is why firmware has to say it.
    #[default]
    AsDescribed,
    /// None does, and their registers say so, whatever the description says.
    DeniedByRegisters,
}

/// A machine, built and not yet switched on.
pub struct Machine {
    pub(crate) name: String,
    pub(crate) description: Arc<Description>,
    /// The number of the description's enabled CPUs that take part.
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
    /// Base address of its registers.
    pub(crate) base: u64,
    pub(crate) hardware: Arc<PlatformDevice>,
}

impl Machine {
    /// Firmware's name of the machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// CPUs that will take part.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// The machine's devices.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let functions = self.hosts.iter().flat_map(|host| {
            let name = self.description.hosts.get(host.index).map(|host| host.id.to_string());
            let functions = host
                .bridge
                .functions()
                .iter()
                .filter(|function| function.store() != StoreConfig::None);
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

    /// Regions that were invented and devices that were left out, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The name of a function of `host` in reports.
pub(crate) fn function_name(host: &str, at: RequesterId) -> String {
    format!("{host} {:02x}:{:02x}.{}", at.pci_bus(), at.pci_device(), at.pci_function())
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.name)
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}

/// Builds the machine that `description` describes: its real controllers at their addresses, and at
/// every PCI host bridge and platform device that can ring one of them somebody who does.
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
        devices,
        fault: options.fault,
        migration: options.migration,
        controller: options.controller,
        lpis: options.lpis,
        notes: space.notes,
    })
}
