//! Setup of many vectors: 64 devices with 16 vectors each, one after the other, behind one ITS.

use crate::probe::{MeasureError, Probe, Reference, each};
use doorbell_machine::sequential::{BootedDevice, BootedMachine};
use doorbell_machine::{
    BuildOptions, ChosenDevices, ChosenFunction, ControllerChoice, FunctionPlacement, Population,
    StoreConfig, build, embedded,
};
use std::fmt::Display;
use std::num::NonZeroU16;
use std::time::Instant;

const NAME: &str = "setup-1024";
/// A machine whose `msi-map` assigns each function a separate DeviceID.
const MACHINE: &str = "estuary";
const DEVICES: u16 = 64;
const VECTORS: u16 = 16;
/// Number of CPUs that the vectors are assigned to, round-robin.
const CPUS: NonZeroU16 = NonZeroU16::new(2).expect("2 is not zero");

/// Returns the probe that measures the time per vector while 64 devices are set up one after the
/// other.
pub(crate) fn probe() -> Result<Probe, MeasureError> {
    let machine = machine()?;
    Ok(Probe::new(NAME, Reference::FetchOr, move || {
        functions(&machine).for_each(|device| device.remove());
        let start = Instant::now();
        let vectors = set_up(&machine)?;
        Ok(each(start.elapsed(), vectors))
    }))
}

fn machine() -> Result<BootedMachine, MeasureError> {
    let unusable = |reason: &dyn Display| MeasureError::Machine(MACHINE, reason.to_string());
    let embedded =
        embedded::machine(MACHINE).ok_or_else(|| unusable(&"the machine does not exist"))?;
    let description = embedded.firmware.describe().map_err(|error| unusable(&error))?;
    let store = StoreConfig::Msix { vectors: VECTORS, table_bar: 0, pba_bar: 0 };
    // Each device has four functions, because a bus only has room for 32 devices.
    let places = [[FunctionPlacement::Root].as_slice(), &[FunctionPlacement::BesideLast; 3]];
    let places = places.concat().into_iter().cycle().take(DEVICES.into());
    let functions = places.map(|place| ChosenFunction { place, store });
    let functions = functions.collect();
    let chosen = ChosenDevices { functions, ..ChosenDevices::default() };
    let options = BuildOptions {
        cpus: Some(CPUS),
        controller: ControllerChoice::Its,
        population: Population::Chosen(chosen),
        ..BuildOptions::default()
    };
    let machine = build(&description, &options).map_err(|error| unusable(&error))?;
    Ok(BootedMachine::boot(machine)?)
}

fn functions(machine: &BootedMachine) -> impl Iterator<Item = BootedDevice<'_>> {
    machine.devices().filter(BootedDevice::is_pci)
}

/// Sets up the functions and returns their number of vectors.
fn set_up(machine: &BootedMachine) -> Result<u32, String> {
    functions(machine).try_for_each(|device| device.add()).map_err(|error| error.to_string())?;
    let vectors = functions(machine).map(|device| device.vectors()).sum::<usize>();
    u32::try_from(vectors).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of commands per device: MAPD, one MAPTI per vector, and, for each of the two CPUs,
    /// one invalidation for its half of the vectors followed by SYNC.
    const COMMANDS: u32 = 1 + VECTORS as u32 + 2 * 2;

    /// Capacity of the driver's queues, in commands.
    const QUEUE: u32 = 2048;

    #[test]
    fn adding_a_device_posts_few_commands_beyond_its_vectors() {
        let machine = machine().unwrap();
        let devices: Vec<_> = functions(&machine).collect();
        assert_eq!(devices.len(), usize::from(DEVICES));

        for device in devices {
            device.remove();
            let before: Vec<_> = machine.next_its_commands().collect();
            device.add().unwrap();
            let after = machine.next_its_commands().zip(before);

            assert_eq!(device.vectors(), usize::from(VECTORS));
            let posted = after.map(|(after, before)| (after + QUEUE - before) % QUEUE).sum::<u32>();
            assert_eq!(posted, COMMANDS);
        }
    }
}
