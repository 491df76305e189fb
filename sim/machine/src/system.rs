//! The machine after its drivers have been brought up, from a kernel's point of view.

mod boot;
mod device;
mod hardware;
mod hotplug;
mod suspend;
mod virtual_bus;

pub(crate) use boot::{PoweredMachine, boot};
pub(crate) use device::{Device, DeviceVector, Driver};
pub(crate) use hotplug::{AffinityChange, first_message};
pub(crate) use virtual_bus::{VirtualBus, VirtualSlot};

use crate::cpu::{CpuCore, CpuRecords, Cpus, call};
use crate::fault::FaultInjector;
use crate::ledger::Pending;
use crate::machine::Omission;
use crate::model::GicModel;
use crate::sequential::silent_fault;
use doorbell_hardware::bridge_msi::BridgeMsi;
use doorbell_hardware::bus::Doorbells;
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use gic_bringup::MsiController;
use gic_firmware::{ControllerIndex, ControllerKind, Description};
use irq_domain::Interrupts;
use msi_types::Cpu;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

/// The machine's interrupt controllers.
pub(crate) type Irqchip = gic_bringup::Irqchip<MachinePlatform>;

/// Turns on `cpu` and enables interrupt delivery to it.
pub(crate) fn turn_on(irqchip: &Arc<Irqchip>, cpus: &dyn Cpus, cpu: Cpu) -> Result<(), String> {
    let theirs = Arc::clone(irqchip);
    let work =
        move |core: &CpuCore| core.execute(|cpu, registers| theirs.cpu_starting(cpu, registers));
    let started = call(cpus, cpu, work).ok_or_else(|| format!("CPU {cpu} does not answer"))?;
    let mut left = None;
    let online = started.and_then(|started| irqchip.cpu_online(started, |one| left = Some(one)));
    online.map_err(|error| error.to_string())?;
    left.map_or(Ok(()), |left| Err(format!("irq {} did not start: {}", left.irq, left.error)))
}

/// The drivers, and the hardware they drive.
pub(crate) struct System {
    pub(crate) description: Arc<Description>,
    pub(crate) platform: Arc<MachinePlatform>,
    pub(crate) irqchip: Arc<Irqchip>,
    pub(crate) interrupts: Interrupts,
    pub(crate) devices: Vec<Device>,
    pub(crate) virtual_bus: Option<Arc<VirtualBus>>,
    pub(crate) records: CpuRecords,
    pub(crate) faults: Arc<FaultInjector>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) model: Arc<GicModel>,
    pub(crate) doorbells: Arc<Doorbells>,
    /// Controllers inside host bridges.
    pub(crate) bridges: Vec<Arc<BridgeMsi>>,
    pub(crate) cpus: usize,
    pub(crate) notes: Vec<String>,
    pub(crate) omitted: Vec<Omission>,
    pub(crate) name: String,
    /// Counts the starts and ends of surprise removals, so the value is odd while one is in
    /// progress.
    pub(crate) surprises: AtomicU64,
    pub(crate) cores: Vec<Arc<CpuCore>>,
    /// Tasks hold this lock shared while they use drivers. A suspend takes it exclusively, which
    /// freezes all tasks.
    pub(crate) tasks: RwLock<()>,
}

impl System {
    /// Returns how this controller's pending bits behave when a vector moves.
    pub(crate) fn pending_at(&self, controller: ControllerIndex) -> Pending {
        match self.description.controller(controller).map(|described| &described.kind) {
            Some(ControllerKind::DirectLpi) => Pending::Stays,
            _ => Pending::Travels,
        }
    }

    /// Returns the number of vectors that a device may allocate. If vectors are scarce, like the
    /// SPIs behind a doorbell, each device may allocate at most an equal share.
    pub(crate) fn fair_share(&self, controller: ControllerIndex) -> u16 {
        let driver = self.irqchip.controller(controller).ok();
        let Some(spis) = driver.and_then(MsiController::spis) else { return u16::MAX };
        let devices =
            self.devices.iter().filter(|device| device.config.controller == controller).count();
        let share = spis / u32::try_from(devices.max(1)).unwrap_or(u32::MAX);
        u16::try_from(share.max(1)).unwrap_or(u16::MAX)
    }

    /// Returns the devices that have vectors.
    pub(crate) fn active(&self) -> Vec<&Device> {
        self.devices.iter().filter(|device| !device.vectors().is_empty()).collect()
    }

    /// Sends one message on each vector whose last message has been handled.
    pub(crate) fn send_each(&self) {
        for device in &self.devices {
            for vector in device.vectors().iter().filter(|vector| vector.record.is_settled()) {
                device.send(vector);
            }
        }
    }

    /// Returns a fault that the drivers could not report in any other way, or `None`.
    pub(crate) fn silent_fault(&self) -> Option<String> {
        let of_bus = || self.virtual_bus.as_ref().and_then(|bus| bus.fault());
        silent_fault(&self.irqchip).or_else(of_bus)
    }
}
