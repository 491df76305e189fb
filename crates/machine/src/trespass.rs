//! The reach of a hostile device: it writes messages that drivers gave to others, and to the rest
//! of a doorbell's page.

mod registers;

pub use registers::Overwritten;

use crate::error::RunError;
use crate::machine::Machine;
use crate::system::{
    Device, DeviceVector, PoweredMachine, SequentialCpus, System, boot, first_message,
};
use doorbell_hardware::iommu::{GRANULE, Iommu};
use msi_types::{Delivery, Isolation, MsiMessage, NotIsolated, RequesterId, SignalMsi};
use std::cell::Cell;
use std::sync::Arc;

/// The IOMMU between devices and the bus.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IommuPages {
    /// There is no IOMMU.
    NoIommu,
    /// An IOMMU that maps nothing for the intruder.
    None,
    /// An IOMMU that maps the page of the doorbell for the intruder, as for everybody who is to
    /// interrupt.
    Doorbell,
}

/// One device against another one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Trespass {
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

/// Brings the machine up and lets its first platform device act against the second one: it writes
/// the message that the drivers gave to the second one, then zeros to the start of that page, and
/// then where a redistributor's LPI tables are. `None` if there are not two that work.
///
/// # Errors
/// The drivers failed, or a controller could not be moved.
pub fn trespass(mut machine: Machine, pages: IommuPages) -> Result<Option<Trespass>, RunError> {
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
    Ok(Some(Trespass {
        intruder: intruder.config.name.clone(),
        victim: victim.config.name.clone(),
        isolation: intruder
            .isolation()
            .unwrap_or(Isolation::NotIsolated(NotIsolated::NoController)),
        rang,
        silenced,
        overwritten: registers::changed(before, &registers::read(&system, intruder, page)),
        seized,
        writes: bus.writes.get(),
        faults: bus.iommu.map_or(0, |iommu| iommu.faults().len()),
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

/// The name that the IOMMU has for the intruder.
const STREAM: RequesterId = RequesterId::new(1);

/// The device that writes.
struct HostileDevice {
    direct: Arc<DirectBus>,
    iommu: Option<Iommu>,
    writes: Cell<usize>,
}

/// The bus as the intruder sees it.
struct DirectBus {
    doorbells: Arc<doorbell_hardware::bus::Doorbells>,
    device: msi_types::DeviceId,
}

impl SignalMsi<RequesterId> for DirectBus {
    fn signal_msi(&self, _from: RequesterId, message: MsiMessage) -> Delivery {
        self.doorbells.signal_msi(self.device, message)
    }
}

impl HostileDevice {
    fn new(device: &Device, system: &System, pages: IommuPages, doorbell: u64) -> Self {
        let doorbells = Arc::clone(&system.doorbells);
        let direct = Arc::new(DirectBus { doorbells, device: device.config.device_id });
        let iommu = (pages != IommuPages::NoIommu).then(|| Iommu::new(Arc::clone(&direct) as _));
        if let Some(iommu) = iommu.as_ref().filter(|_| pages == IommuPages::Doorbell) {
            iommu.map(STREAM, doorbell, doorbell);
        }
        Self { direct, iommu, writes: Cell::new(0) }
    }

    /// Writes to memory of its own, which it may, as to the buffers that its driver gives it.
    fn write_own(&self, message: MsiMessage) {
        if let Some(iommu) = self.iommu.as_ref() {
            iommu.map(STREAM, message.address, message.address);
        }
        self.send(message);
    }

    fn write(&self, message: MsiMessage) {
        self.writes.set(self.writes.get() + 1);
        self.send(message);
    }

    fn send(&self, message: MsiMessage) {
        match &self.iommu {
            Some(iommu) => iommu.signal_msi(STREAM, message),
            None => self.direct.signal_msi(STREAM, message),
        };
    }
}
