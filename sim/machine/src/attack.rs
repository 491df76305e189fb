//! The reach of a hostile device: it writes messages that drivers gave to others, and to the rest
//! of a doorbell's page.

mod hostile_device;
mod registers;

pub use hostile_device::IommuPages;
pub use registers::Overwritten;

use crate::error::RunError;
use crate::machine::Machine;
use crate::system::{Device, DeviceVector, PoweredMachine, SequentialCpus, boot, first_message};
use doorbell_hardware::iommu::GRANULE;
use hostile_device::HostileDevice;
use msi_types::{Isolation, MsiMessage, NotIsolated};

/// One device against another one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AttackReport {
    /// The device that wrote.
    pub intruder: String,
    /// The device whose message it wrote.
    pub victim: String,
    /// The intruder's isolation, as the drivers state it.
    pub isolation: Isolation,
    /// The victim's handler ran, though the victim had sent nothing.
    pub rang: bool,
    /// After the intruder wrote zeros to the first word of the doorbell's page, what the victim
    /// sent did not arrive.
    pub silenced: bool,
    /// Registers of the doorbell's page that the intruder changed then.
    pub overwritten: Vec<Overwritten>,
    /// With LPI tables of the intruder's at the redistributor, the victim's interrupts arrive
    /// exactly while the intruder's table says so.
    pub seized: bool,
    /// Writes of the intruder outside of its own memory.
    pub writes: usize,
    /// Those that the IOMMU stopped.
    pub faults: usize,
    /// The number of migrations meanwhile.
    pub migrated: u64,
}

/// Brings the machine up and lets its first platform device act against the second one. It writes
/// the message that the drivers gave to the second one, then zeros to the start of that page. Then
/// it writes the addresses of its own LPI tables to the redistributor. `None` if there are not two
/// that work.
///
/// # Errors
/// The drivers failed, or a controller could not be moved.
pub fn attack(mut machine: Machine, pages: IommuPages) -> Result<Option<AttackReport>, RunError> {
    let powered = PoweredMachine::on(&mut machine);
    let cpus = SequentialCpus::new(&powered);
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
    let before = registers::read(&system, intruder, page);
    let silenced = !runs_of(&cpus, vector, || {
        bus.write(MsiMessage { address: page, data: 0 });
        victim.send(vector);
    });
    let mut arrives = || {
        runs_of(&cpus, vector, || {
            victim.send(vector);
        })
    };
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
        overwritten: registers::changed(before, &registers::read(&system, intruder, page)),
        seized,
        writes: bus.writes(),
        faults: bus.faults(),
        migrated,
    }))
}

/// Does something, has all CPUs take what is pending then; did the vector's handler run?
fn runs_of(cpus: &SequentialCpus, vector: &DeviceVector, act: impl FnOnce()) -> bool {
    let before = vector.record.counts().runs;
    act();
    cpus.settle();
    vector.record.counts().runs != before
}
