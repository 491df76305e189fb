//! The machine with its drivers up: what a kernel would be.

mod boot;
mod controllers;
mod hotplug;
mod in_turn;
mod unit;

pub(crate) use boot::{Powered, boot};
pub(crate) use controllers::Controllers;
pub(crate) use hotplug::{Moved, first_message};
pub(crate) use in_turn::InTurn;
pub(crate) use unit::{Departure, Driver, Unit, UnitVector};

use crate::cpu::{CpuBooks, CpuCore, Gic};
use crate::fault::Faults;
use crate::model::Model;
use crate::oracle::Pending;
use doorbell_hardware::bus::Doorbells;
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use gic_firmware::{ControllerIndex, ControllerKind, Description};
use irq_domain::Interrupts;
use msi_types::Cpu;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// The machine's ITS driver.
pub(crate) type Its = gic_driver::Its<MachinePlatform>;

/// The machine's driver of direct LPIs.
pub(crate) type DirectLpi = gic_driver::DirectLpi<MachinePlatform>;

/// Work for a CPU.
pub(crate) type Work = Box<dyn FnOnce(&CpuCore) + Send>;

/// The machine's CPUs, however they run.
pub(crate) trait Cpus {
    /// How many.
    fn count(&self) -> usize;
    /// Has `cpu` do `work`, and returns when it is done.
    fn run_on(&self, cpu: Cpu, work: Work);
}

/// Has `cpu` do `work` and returns its result; `None` if the CPU dropped it.
pub(crate) fn call<R: Send + 'static>(
    cpus: &dyn Cpus,
    cpu: Cpu,
    work: impl FnOnce(&CpuCore) -> R + Send + 'static,
) -> Option<R> {
    let result = Arc::new(Mutex::new(None));
    let theirs = Arc::clone(&result);
    cpus.run_on(cpu, Box::new(move |core| *doorbell_hardware::lock::lock(&theirs) = Some(work(core))));
    doorbell_hardware::lock::lock(&result).take()
}

/// The drivers and what they drive.
pub(crate) struct System {
    pub(crate) description: Arc<Description>,
    pub(crate) platform: Arc<MachinePlatform>,
    pub(crate) gic: Arc<Gic>,
    pub(crate) controllers: Controllers,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) units: Vec<Unit>,
    pub(crate) books: CpuBooks,
    pub(crate) faults: Arc<Faults>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) model: Arc<Model>,
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
        let devices = self.units.iter().filter(|unit| unit.config.controller == controller).count();
        let share = spis / u32::try_from(devices.max(1)).unwrap_or(u32::MAX);
        u16::try_from(share.max(1)).unwrap_or(u16::MAX)
    }

    /// Each vector whose last message was handled sends one; `sent` is told which, by device and vector.
    pub(crate) fn send_each(&self, mut sent: impl FnMut(usize, usize)) {
        for (device, unit) in self.units.iter().enumerate() {
            for (index, vector) in unit.vectors().iter().enumerate() {
                if vector.ledger.is_settled() && unit.send(vector) {
                    sent(device, index);
                }
            }
        }
    }

    /// What the drivers could not report in any other way; `None` if all went well.
    pub(crate) fn silent_fault(&self) -> Option<String> {
        self.controllers.silent_fault()
    }
}
