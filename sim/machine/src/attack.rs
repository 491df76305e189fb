//! Measures what a hostile device can do by writing other devices' messages, and by writing to the
//! other registers in the doorbell page.

mod hostile_device;
mod registers;

pub use hostile_device::IommuPages;

use crate::error::RunError;
use crate::machine::Machine;
use crate::sequential::GicCpus;
use crate::system::{Device, DeviceVector, PoweredMachine, boot, first_message};
use doorbell_hardware::iommu::GRANULE;
use hostile_device::HostileDevice;
use msi_types::{Isolation, MsiMessage, NotIsolated};

/// The outcome of one device attacking another.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AttackReport {
    /// Name of the attacking device.
    pub intruder: String,
    /// Name of the device under attack.
    pub victim: String,
    /// The attacking device's isolation, as the drivers report it.
    pub isolation: Isolation,
    /// Set if the attacked device's handler ran although that device had not sent a message.
    pub rang: bool,
    /// Set if the attacked device's messages stopped arriving after the attacker had written zeros
    /// to the first word of the doorbell page.
    pub silenced: bool,
    /// Set if the attacker made the redistributor use LPI tables in the attacker's memory, and the
    /// attacked device's interrupts then arrived if and only if those tables enabled them.
    pub seized: bool,
    /// Number of the attacker's writes outside its own memory.
    pub writes: u64,
    /// Number of the attacker's writes that the IOMMU blocked.
    pub faults: u64,
    /// Number of migrations during the attack.
    pub migrated: u64,
}

/// Brings the machine up and lets its first platform device attack the second.
///
/// The attacker writes the message that the drivers composed for the attacked device, then zeros to
/// the start of the doorbell page, and finally makes the redistributor use LPI tables in the
/// attacker's memory. Returns `None` unless the machine has two platform devices with working
/// interrupts.
///
/// # Errors
/// Returns an error if a driver fails, or if a controller cannot be migrated.
pub fn attack(mut machine: Machine, pages: IommuPages) -> Result<Option<AttackReport>, RunError> {
    let powered = PoweredMachine::on(&mut machine);
    let cpus = powered.sequential();
    let system = boot(machine, &powered, &cpus)?;
    let working = |device: &&Device| !device.is_pci() && !device.vectors().is_empty();
    let mut devices = system.devices.iter().filter(working);
    let Some((intruder, victim)) = devices.next().zip(devices.next()) else { return Ok(None) };
    let Some((message, vector)) = first_message(victim, &system).zip(victim.vectors().first())
    else {
        return Ok(None);
    };
    let bus = HostileDevice::new(intruder, &system, pages, message.address);
    let rang = runs_of(&cpus, vector, || bus.write(message));
    let page = GRANULE.page(message.address);
    let silenced = !runs_of(&cpus, vector, || {
        bus.write(MsiMessage { address: page, data: 0 });
        victim.send(vector);
    });
    let mut arrives = || runs_of(&cpus, vector, || _ = victim.send(vector));
    let seized = registers::seize(&system, &bus, message, &mut arrives);
    let migrated = cpus.migrated().map_err(RunError::NotMoved)?;
    Ok(Some(AttackReport {
        intruder: intruder.config.name.clone(),
        victim: victim.config.name.clone(),
        isolation: intruder
            .isolation()
            .unwrap_or(Isolation::NotIsolated(NotIsolated::NoController)),
        rang,
        silenced,
        seized,
        writes: bus.writes(),
        faults: bus.faults(),
        migrated,
    }))
}

/// Calls `act`, lets all CPUs take their pending interrupts, and returns `true` if the vector's
/// handler ran.
fn runs_of(cpus: &GicCpus, vector: &DeviceVector, act: impl FnOnce()) -> bool {
    let before = vector.record.counts().runs;
    act();
    cpus.settle();
    vector.record.counts().runs != before
}
