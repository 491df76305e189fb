//! The machine with its drivers up: what a kernel would be.

mod boot;
mod controllers;
mod device;
mod hotplug;
mod sequential_cpus;

pub(crate) use boot::{PoweredMachine, boot};
pub(crate) use controllers::Controllers;
pub(crate) use device::{Device, DeviceVector, Driver, Removal};
pub(crate) use hotplug::{AffinityChange, first_message};
pub(crate) use sequential_cpus::SequentialCpus;

use crate::cpu::{CpuRecords, Gic};
use crate::fault::Faults;
use crate::model::GicModel;
use crate::oracle::Pending;
use doorbell_hardware::bus::Doorbells;
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use gic_firmware::{ControllerIndex, ControllerKind, Description};
use irq_domain::Interrupts;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The drivers and what they drive.
pub(crate) struct System {
    pub(crate) description: Arc<Description>,
    pub(crate) platform: Arc<MachinePlatform>,
    pub(crate) gic: Arc<Gic>,
    pub(crate) controllers: Controllers,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) devices: Vec<Device>,
    pub(crate) records: CpuRecords,
    pub(crate) faults: Arc<Faults>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) model: Arc<GicModel>,
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) cpus: usize,
    pub(crate) notes: Vec<String>,
    pub(crate) name: String,
    /// Devices that are pulled out: it goes up when one begins to go, and when it is gone. Odd meanwhile.
    pub(crate) surprises: AtomicU64,
}

impl System {
    /// What becomes of what is pending when a vector at this controller moves.
    pub(crate) fn pending_at(&self, controller: ControllerIndex) -> Pending {
        match self.description.controller(controller).map(|described| &described.kind) {
            Some(ControllerKind::DirectLpi) => Pending::Stays,
            _ => Pending::Travels,
        }
    }

    /// How many vectors a device may take. Where they are scarce, as the SPIs behind a doorbell are, every device gets its
    /// share before any gets all that it asks for.
    pub(crate) fn fair_share(&self, controller: ControllerIndex) -> u16 {
        let Some(spis) = self.controllers.spis(controller) else { return u16::MAX };
        let devices = self.devices.iter().filter(|device| device.config.controller == controller).count();
        let share = spis / u32::try_from(devices.max(1)).unwrap_or(u32::MAX);
        u16::try_from(share.max(1)).unwrap_or(u16::MAX)
    }

    /// Each vector whose last message was handled sends one; `sent` is told which, by device and vector.
    pub(crate) fn send_each(&self, mut sent: impl FnMut(usize, usize)) {
        for (number, device) in self.devices.iter().enumerate() {
            for (index, vector) in device.vectors().iter().enumerate() {
                if vector.record.is_settled() && device.send(vector) {
                    sent(number, index);
                }
            }
        }
    }

    /// What the drivers could not report in any other way; `None` if all went well.
    pub(crate) fn silent_fault(&self) -> Option<String> {
        self.controllers.silent_fault()
    }
}
