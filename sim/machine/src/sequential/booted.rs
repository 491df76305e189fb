//! A machine whose drivers are up.

use crate::error::RunError;
use crate::machine::{Machine, itses};
use crate::system::{
    AffinityChange, Device, PoweredMachine, Removal, SequentialCpus, System, boot,
};
use gic_arch::gits::{self, Cwriter};
use gic_arch::its::COMMAND_BYTES;
use msi_types::Cpu;
use std::fmt;
use vgic::AccessWidth;

/// A machine whose controllers are up and whose devices have their vectors.
pub struct BootedMachine {
    system: System,
    cpus: SequentialCpus,
}

impl BootedMachine {
    /// Switches `machine` on and brings its drivers up.
    ///
    /// # Errors
    /// A controller does not come up, or no device gets a vector.
    pub fn boot(mut machine: Machine) -> Result<Self, RunError> {
        let powered = PoweredMachine::on(&mut machine);
        let cpus = SequentialCpus::new(&powered);
        let system = boot(machine, &powered, &cpus)?;
        Ok(Self { system, cpus })
    }

    /// The device at `index`, in the order of discovery.
    pub fn device(&self, index: usize) -> Option<BootedDevice<'_>> {
        let device = self.system.devices.get(index)?;
        Some(BootedDevice { system: &self.system, device })
    }

    /// The devices, in the order of discovery.
    pub fn devices(&self) -> impl Iterator<Item = BootedDevice<'_>> {
        self.system.devices.iter().map(|device| BootedDevice { system: &self.system, device })
    }

    /// The place in each ITS's command queue that its driver writes next, counted in commands
    /// (`GITS_CWRITER`).
    pub fn next_its_commands(&self) -> impl Iterator<Item = u32> {
        itses(&self.system.description).map(|(_, _, registers)| {
            let address = registers + u64::from(gits::CWRITER.offset());
            let written = self.system.platform.cpu_bus().read(address, AccessWidth::Double);
            Cwriter::from(written).offset() / COMMAND_BYTES
        })
    }

    /// `cpu` takes one interrupt: acknowledges it, runs its handler, ends it. False if none is
    /// pending, or if there is no such CPU.
    pub fn take_interrupt(&self, cpu: Cpu) -> bool {
        self.cpus.cores().get(cpu.index()).is_some_and(|core| core.take_one())
    }

    /// The CPUs take what is pending, until nothing is and all may sleep.
    ///
    /// # Panics
    /// The model keeps them from sleeping for good: a defect of the model.
    pub fn settle(&self) {
        self.cpus.settle();
    }
}

impl fmt::Debug for BootedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootedMachine").field("name", &self.system.name).finish_non_exhaustive()
    }
}

/// A device of a [`BootedMachine`], with its driver.
#[derive(Clone, Copy)]
pub struct BootedDevice<'a> {
    system: &'a System,
    device: &'a Device,
}

impl BootedDevice<'_> {
    /// Is it a PCI function?
    pub fn is_pci(&self) -> bool {
        self.device.is_pci()
    }

    /// The number of its vectors.
    pub fn vectors(&self) -> usize {
        self.device.vectors().len()
    }

    /// Its driver gives its vectors back, and it goes.
    pub fn remove(&self) {
        self.device.remove(self.system, Removal::Orderly);
    }

    /// It comes back, and its driver sets its vectors up again.
    ///
    /// # Errors
    /// The driver's reason for getting none.
    pub fn add(&self) -> Result<(), RunError> {
        let failed = |reason| RunError::Driver { operation: "setting a device up".into(), reason };
        self.device.add(self.system).map_err(failed)
    }

    /// Its driver moves the vector at `index` to `to`. False if the CPU is off line, there is no
    /// such vector, or the endpoint cannot store the new message.
    ///
    /// # Errors
    /// The driver's reason.
    pub fn move_vector(&self, index: usize, to: Cpu) -> Result<bool, RunError> {
        let failed = |reason| RunError::Driver { operation: "moving a vector".into(), reason };
        let change = self.device.move_vector(index, to).map_err(failed)?;
        Ok(change == AffinityChange::Done)
    }

    /// It sends the next message of the vector at `index`. False if it cannot.
    pub fn send(&self, index: usize) -> bool {
        self.device.vectors().get(index).is_some_and(|vector| self.device.send(vector))
    }
}

impl fmt::Debug for BootedDevice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootedDevice").field("vectors", &self.vectors()).finish_non_exhaustive()
    }
}
