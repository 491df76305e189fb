//! Measures what a hostile device can do by writing other devices' messages, and by writing to the
//! other registers in the doorbell page.

use crate::error::RunError;
use crate::machine::Machine;
use crate::sequential::GicCpus;
use crate::system::{Device, DeviceVector, PoweredMachine, System, boot, first_message};
use doorbell_hardware::iommu::{GRANULE, Iommu};
use doorbell_hardware::pci::Translator;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::{Lpi, gicr};
use msi_types::{Isolation, MsiMessage, NotIsolated, RequesterId, SignalMsi};
use std::cell::Cell;
use std::sync::Arc;

/// Number of INTID bits in the attacker's tables, the minimum for LPIs.
const ID_BITS: u8 = 14;
/// Configuration byte of an LPI that is enabled, at the priority that the drivers use.
const ENABLED: u32 = 0xa1;
/// Alignment of the pending table. The alignment exceeds the size of either table.
const TABLE: u64 = 0x1_0000;

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
    let Some((message, vector)) = first_message(victim).zip(victim.vectors().first()) else {
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
    let seized = seize(&system, &bus, message, &mut arrives);
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

/// Makes the redistributor that receives the message `victim` use LPI tables in the attacker's own
/// memory. Returns `true` if the attacked device's LPI arrives while the attacker's table enables
/// it, and does not arrive while the table disables it.
fn seize(
    system: &System,
    intruder: &HostileDevice,
    victim: MsiMessage,
    arrives: &mut dyn FnMut() -> bool,
) -> bool {
    let page = GRANULE.page(victim.address);
    let tables = system.ram.allocate(TABLE, TABLE).zip(system.ram.allocate(TABLE, TABLE));
    let (Some((configuration, pending)), Ok(lpi)) = (tables, Lpi::try_from(victim.data)) else {
        return false;
    };
    let word = |at: u64, value: u64| {
        let [low, high] =
            [value, value >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0));
        intruder.write(MsiMessage { address: at, data: low });
        intruder.write(MsiMessage { address: at + 4, data: high });
    };
    let control = |enable| {
        let data = Ctlr::new().with_enable_lpis(enable).into();
        intruder.write(MsiMessage { address: page + u64::from(gicr::CTLR.offset()), data });
    };
    let propbaser =
        Propbaser::new().with_id_bits_minus_one(ID_BITS - 1).with_address(configuration);
    word(page + u64::from(gicr::PROPBASER.offset()), propbaser.into_bits());
    word(
        page + u64::from(gicr::PENDBASER.offset()),
        Pendbaser::new().with_address(pending).into_bits(),
    );
    control(true);
    let while_disabled = arrives();
    // Clearing EnableLPIs discards everything that the redistributor has cached from the table.
    control(false);
    // While GICR_CTLR.RWP is set, the redistributor is still writing back the pending table. IHI
    // 0069 permits setting EnableLPIs again only once RWP is clear.
    let while_off = arrives();
    let byte = configuration + u64::from(lpi.index());
    intruder.write_own(MsiMessage { address: byte & !3, data: ENABLED << (byte % 4 * 8) });
    control(true);
    !while_disabled && !while_off && arrives()
}

/// The IOMMU between devices and the bus.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IommuPages {
    /// No IOMMU.
    NoIommu,
    /// An IOMMU that maps nothing for the attacker.
    None,
    /// An IOMMU that maps the doorbell page for the attacker. Every device that sends interrupts
    /// needs this mapping.
    Doorbell,
}

/// The attacker's stream, which identifies it to the IOMMU.
const STREAM: RequesterId = RequesterId::new(1);

/// The device that performs the writes.
struct HostileDevice {
    /// The bus, as the attacker sees it.
    direct: Arc<Translator>,
    iommu: Option<Iommu>,
    writes: Cell<u64>,
}

impl HostileDevice {
    fn new(device: &Device, system: &System, pages: IommuPages, doorbell: u64) -> Self {
        let id = device.config.device_id;
        let direct = Arc::new(Translator::new(Arc::clone(&system.doorbells), move |_| Some(id)));
        let iommu = (pages != IommuPages::NoIommu).then(|| Iommu::new(Arc::clone(&direct) as _));
        if let Some(iommu) = iommu.as_ref().filter(|_| pages == IommuPages::Doorbell) {
            iommu.map(STREAM, doorbell, doorbell);
        }
        Self { direct, iommu, writes: Cell::new(0) }
    }

    /// Writes to the attacker's own memory. The IOMMU always permits these writes, like DMA to a
    /// buffer that the driver has assigned to the device.
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

    /// Returns the number of writes outside the attacker's own memory.
    fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Returns the number of writes that the IOMMU blocked.
    fn faults(&self) -> u64 {
        self.iommu.as_ref().map_or(0, Iommu::stopped)
    }

    fn send(&self, message: MsiMessage) {
        match &self.iommu {
            Some(iommu) => iommu.signal_msi(STREAM, message),
            None => self.direct.signal_msi(STREAM, message),
        };
    }
}
