//! A machine, built and not yet switched on.

mod controllers;
pub(crate) mod gic;
mod hosts;
mod memory;
mod platform_devices;
mod populate;
mod refusal;
mod shared_interrupts;
mod space;

pub use controllers::ControllerChoice;
pub(crate) use controllers::{itses, usable};
pub(crate) use gic::populated_redistributors;
pub use refusal::Refusal;

use crate::bus::{Bus, Doorbells};
use crate::cpu::Sleepers;
use crate::pci::HostBridge;
use crate::platform::PlatformFault;
use crate::platform_device::PlatformDevice;
use crate::ram::Ram;
use gic_firmware::{ControllerIndex, Description};
use msi_types::DeviceId;
use space::Space;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use vgic::{Vcpu, Vgic};

/// How to build a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// At most so many CPUs; `None` = as many as the description has.
    pub cpus: Option<NonZeroU16>,
    /// Whose devices take part.
    pub controller: ControllerChoice,
    /// Whether redistributors can stop taking LPIs.
    pub lpi_disabling: LpiDisabling,
    /// Which view of the distributor software gets.
    pub security: SecurityView,
    /// What ITS commands name as an interrupt's target.
    pub targets: TargetAddresses,
    /// Whether controllers look into the CPUs' caches.
    pub snooping: Snooping,
    /// Whether the drivers' platform does what they ask.
    pub platform_fault: PlatformFault,
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
    pub(crate) vgic: Arc<Vgic>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) sleepers: Arc<Sleepers>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) devices: Vec<Device>,
    pub(crate) fault: PlatformFault,
    pub(crate) controller: ControllerChoice,
    pub(crate) notes: Vec<String>,
}

/// A host bridge of the machine.
pub(crate) struct Host {
    /// Its place in [`Description::hosts`].
    pub(crate) index: usize,
    pub(crate) bridge: Arc<HostBridge>,
}

/// A platform device of the machine.
pub(crate) struct Device {
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

    /// What had to be invented or left out, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
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
    let mut space = Space::default();
    gic.claim(&mut space)?;
    gic::note_windows(&description, &mut space);
    let regions = memory::plan(&description, &mut space)?;
    let hosts = hosts::plan(&description, options.controller, &mut space)?;
    let devices = platform_devices::plan(&description, options.controller, &mut space)?;
    if hosts.is_empty() && devices.is_empty() {
        return Err(Refusal::NothingRings { controllers: gic.controllers });
    }
    let ram = Arc::new(Ram::new(&regions, gic::caches(&description, options)));
    let sleepers = Arc::new(Sleepers::new(gic.config.cpus.len()));
    let (vgic, vcpus) = Vgic::new(gic.config, Arc::clone(&ram) as _, Arc::clone(&sleepers) as _)?;
    let doorbells = Arc::new(gic::doorbells(&vgic, &ram));
    let mut bus = Bus::default();
    gic::attach(&vgic, &mut bus)?;
    let hosts = hosts::build(&description, hosts, &doorbells, &mut bus)?;
    let devices = platform_devices::build(devices, &doorbells, &mut bus)?;
    Ok(Machine {
        name: description.model.as_ref().map_or_else(|| "unnamed".to_owned(), |model| model.value.clone()),
        cpus: gic.cpus,
        description,
        bus: Arc::new(bus),
        ram,
        doorbells,
        vgic,
        vcpus,
        sleepers,
        hosts,
        devices,
        fault: options.platform_fault,
        controller: options.controller,
        notes: space.notes,
    })
}
