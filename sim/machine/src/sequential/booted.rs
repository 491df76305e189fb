//! A machine whose drivers have been brought up.

use crate::error::RunError;
use crate::machine::{Machine, itses};
use crate::system::{
    AffinityChange, Device, PoweredMachine, Removal, SequentialCpus, System, boot,
};
use gic_arch::gits::{self, Cwriter};
use gic_arch::its::COMMAND_BYTES;
use msi_types::Cpu;
use vgic::AccessWidth;

/// A machine whose controllers are up and whose devices have their vectors.
pub struct BootedMachine {
    system: System,
    cpus: SequentialCpus,
}

impl BootedMachine {
    /// Powers up `machine` and brings up its drivers.
    ///
    /// # Errors
    /// Returns an error if a controller cannot be brought up, or if every device was denied
    /// vectors.
    pub fn boot(mut machine: Machine) -> Result<Self, RunError> {
        let powered = PoweredMachine::on(&mut machine);
        let cpus = SequentialCpus::new(&powered);
        let system = boot(machine, &powered, &cpus)?;
        Ok(Self { system, cpus })
    }

    /// Returns the device at `index`, in discovery order.
    pub fn device(&self, index: usize) -> Option<BootedDevice<'_>> {
        let device = self.system.devices.get(index)?;
        Some(BootedDevice { system: &self.system, device })
    }

    /// Returns the devices in discovery order.
    pub fn devices(&self) -> impl Iterator<Item = BootedDevice<'_>> {
        self.system.devices.iter().map(|device| BootedDevice { system: &self.system, device })
    }

    /// Returns, for each ITS, the queue index at which its driver writes the next command
    /// (`GITS_CWRITER`, in commands).
    pub fn next_its_commands(&self) -> impl Iterator<Item = u32> {
        itses(&self.system.description).map(|(_, _, registers)| {
            let address = registers + u64::from(gits::CWRITER.offset());
            let written = self.system.platform.cpu_bus().read(address, AccessWidth::Double);
            Cwriter::from(written).offset() / COMMAND_BYTES
        })
    }

    /// Lets `cpu` take one interrupt: acknowledge it, run its handler and signal EOI. Returns
    /// `false` if no interrupt is pending or the CPU does not exist.
    pub fn take_interrupt(&self, cpu: Cpu) -> bool {
        self.cpus.cores().get(cpu.index()).is_some_and(|core| core.take_one())
    }

    /// Lets the CPUs take interrupts until none is pending and all CPUs may sleep.
    ///
    /// # Panics
    /// Panics if a defect in the model keeps the CPUs from ever sleeping.
    pub fn settle(&self) {
        self.cpus.settle();
    }
}

msi_types::debug_by!(BootedMachine as "BootedMachine", |it| {name: it.system.name});

/// A device of a [`BootedMachine`], with its driver.
#[derive(Clone, Copy)]
pub struct BootedDevice<'a> {
    system: &'a System,
    device: &'a Device,
}

impl BootedDevice<'_> {
    /// Returns `true` if the device is a PCI function.
    pub fn is_pci(&self) -> bool {
        self.device.is_pci()
    }

    /// Returns the number of vectors.
    pub fn vectors(&self) -> usize {
        self.device.vectors().len()
    }

    /// Removes the device once its driver has freed its vectors.
    pub fn remove(&self) {
        self.device.remove(self.system, Removal::Orderly);
    }

    /// Adds the device again and lets its driver set up the vectors again.
    ///
    /// # Errors
    /// Returns an error if the driver cannot allocate vectors.
    pub fn add(&self) -> Result<(), RunError> {
        let failed = |reason| RunError::Driver { operation: "setting up a device".into(), reason };
        self.device.add(self.system).map_err(failed)
    }

    /// Makes the driver move the vector at `index` to `to`. Returns `false` if the CPU is offline,
    /// the vector does not exist, or the endpoint cannot store the new message.
    ///
    /// # Errors
    /// Returns an error if the driver fails to move the vector.
    pub fn move_vector(&self, index: usize, to: Cpu) -> Result<bool, RunError> {
        let failed = |reason| RunError::Driver { operation: "moving a vector".into(), reason };
        let change = self.device.move_vector(index, to).map_err(failed)?;
        Ok(change == AffinityChange::Done)
    }

    /// Sends the next message of the vector at `index`. Returns `false` if the device cannot send
    /// the message.
    pub fn send(&self, index: usize) -> bool {
        self.device.vectors().get(index).is_some_and(|vector| self.device.send(vector))
    }
}

msi_types::debug_by!(BootedDevice<'_> as "BootedDevice", |it| {vectors: it.vectors()});
