//! A virtual GIC with an ITS, programmed as a driver does, for measuring.

use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::lpi::Config;
use gic_arch::{Priority, gicd, gicr, gits, icc};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Kick, MsiMessage, SignalMsi};
use std::sync::{Arc, Mutex, PoisonError};
use vgic::its::ItsConfig;
use vgic::{AccessWidth, GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};

const ITS: u64 = 0x0808_0000;
const RAM: u64 = 0x4000_0000;
const QUEUE: u64 = RAM;
const QUEUE_BYTES: u64 = 0x1_0000;
const DEVICES: u64 = RAM + 0x10_0000;
const COLLECTIONS: u64 = RAM + 0x20_0000;
const CONFIGURATION: u64 = RAM + 0x30_0000;
const PENDING: u64 = RAM + 0x40_0000;
const RAM_BYTES: usize = 0x50_0000;
const FIRST_LPI: u32 = 8192;
/// The number of LPIs.
pub(crate) const LPIS: u32 = 0x1_0000 - FIRST_LPI;

/// Guest memory behind a lock: the measured paths do not touch it.
struct FlatMemory(Mutex<Vec<u8>>);

impl FlatMemory {
    fn with<R>(
        &self,
        address: u64,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, MemoryFault> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = address.checked_sub(RAM).and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| bytes.get_mut(start..start.checked_add(len)?));
        range.map(f).ok_or(MemoryFault { address })
    }
}

impl GuestMemory for FlatMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.with(address, bytes.len(), |from| bytes.copy_from_slice(from))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.with(address, bytes.len(), |to| to.copy_from_slice(bytes))
    }
}

/// Kicks nobody: the vCPUs poll.
pub(crate) struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

/// The machine.
pub(crate) struct MeasuredGic {
    gic: Arc<Vgic>,
    ram: Arc<FlatMemory>,
    doorbell: Arc<dyn SignalMsi<DeviceId>>,
    address: u64,
    written: u64,
}

/// The mapping of devices and events.
#[derive(Clone, Copy)]
pub(crate) struct EventMapping {
    /// Devices, from DeviceID 0 on.
    pub(crate) devices: u32,
    /// log2 of the events of each.
    pub(crate) event_bits: u8,
    /// Each event's priority.
    pub(crate) priority: fn(u32) -> u8,
}

impl EventMapping {
    /// All at one priority.
    pub(crate) const fn new(devices: u32, event_bits: u8) -> Self {
        Self { devices, event_bits, priority: |_| 0xa0 }
    }

    /// Device and event of an LPI of [`MeasuredGic::mapped`], the first of them.
    pub(crate) fn event_of(self, intid: u64) -> (u32, u32) {
        let index = u32::try_from(intid).unwrap_or(0).saturating_sub(FIRST_LPI);
        (index >> self.event_bits, index & ((1 << self.event_bits) - 1))
    }
}

impl MeasuredGic {
    /// Two vCPUs or `targets`, at most 16, with as many priority bits as it takes for a mask that
    /// lets 32 priorities of LPIs through; the events are mapped to consecutive LPIs (which start
    /// again from the first when they are used up); device n to vCPU n modulo `targets`.
    pub(crate) fn mapped(
        mapping: EventMapping,
        targets: u16,
        kick: Arc<dyn Kick>,
    ) -> Result<(Self, Vec<Vcpu>), String> {
        let config = VgicConfig::new(targets.max(2))
            .with_lpi_id_bits(Some(16))
            .with_its(vec![ItsConfig::new(ITS)])
            .with_priority_bits(6);
        let ram = Arc::new(FlatMemory(Mutex::new(vec![0; RAM_BYTES])));
        let made = Vgic::new(config, ram.clone(), kick).map_err(|error| error.to_string())?;
        let (gic, mut vcpus) = made;
        let doorbell = gic.its(0).ok_or("the machine has no ITS")?;
        let address = ItsConfig::new(ITS).doorbell();
        let mut model = Self { gic, ram, doorbell, address, written: 0 };
        model.boot(&mut vcpus)?;
        model.map(mapping, targets)?;
        Ok((model, vcpus))
    }

    fn boot(&self, vcpus: &mut [Vcpu]) -> Result<(), String> {
        let config = self.gic.config();
        self.write(config.distributor + u64::from(gicd::CTLR.offset()), AccessWidth::Word, 2)?;
        let region = config.redistributors.first().ok_or("no redistributors")?;
        for (vcpu, at) in vcpus.iter_mut().zip(0..) {
            let frame = region.base + region.stride * at;
            self.write(frame + u64::from(gicr::WAKER.offset()), AccessWidth::Word, 0)?;
            let propbaser = CONFIGURATION | 15;
            self.write(
                frame + u64::from(gicr::PROPBASER.offset()),
                AccessWidth::Double,
                propbaser,
            )?;
            let pendbaser = PENDING + at * 0x1_0000;
            self.write(
                frame + u64::from(gicr::PENDBASER.offset()),
                AccessWidth::Double,
                pendbaser,
            )?;
            self.write(frame + u64::from(gicr::CTLR.offset()), AccessWidth::Word, 1)?;
            for (register, value) in [(icc::PMR.encoding(), 0xff), (icc::IGRPEN1.encoding(), 1)] {
                vcpu.write_sysreg(register, value).map_err(|error| error.to_string())?;
            }
        }
        for (table, address) in (0..).zip([DEVICES, COLLECTIONS]) {
            let register = gits::BASER.get(table).ok_or("no table")?;
            self.write(ITS + u64::from(register.offset()), AccessWidth::Double, 1 << 63 | address)?;
        }
        let cbaser = 1 << 63 | QUEUE | (QUEUE_BYTES / 0x1000 - 1);
        self.write(ITS + u64::from(gits::CBASER.offset()), AccessWidth::Double, cbaser)?;
        self.write(ITS + u64::from(gits::CTLR.offset()), AccessWidth::Word, 1)
    }

    fn map(&mut self, mapping: EventMapping, targets: u16) -> Result<(), String> {
        let events = 1u32 << mapping.event_bits;
        for lpi in 0..LPIS {
            let priority = Priority::new((mapping.priority)(lpi % events));
            let byte = Config::new().with_enable(true).with_priority(priority).into_bits();
            self.ram
                .write(CONFIGURATION + u64::from(lpi), &[byte])
                .map_err(|fault| fault.to_string())?;
        }
        for vcpu in 0..targets {
            self.command(Command::Mapc {
                collection: CollectionId::new(vcpu),
                target: RdBase::from_processor_number(vcpu),
                action: MapAction::Map,
            })?;
        }
        let mut lpi = 0;
        for number in 0..mapping.devices {
            let device = DeviceId::new(number);
            let event_bits_minus_one = mapping.event_bits.saturating_sub(1);
            self.command(Command::Mapd {
                device,
                itt: 0,
                event_bits_minus_one,
                action: MapAction::Map,
            })?;
            let collection =
                CollectionId::new(u16::try_from(number % u32::from(targets)).unwrap_or(0));
            for event in (0..events).map(EventId::new) {
                let intid = FIRST_LPI + lpi % LPIS;
                self.command(Command::Mapti { device, event, intid, collection })?;
                lpi += 1;
            }
        }
        let faults = self.gic.command_faults(0).ok_or("no ITS")?;
        if faults.count == 0 { Ok(()) } else { Err(faults.to_string()) }
    }

    fn command(&mut self, command: Command) -> Result<(), String> {
        let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
        self.ram.write(QUEUE + self.written, &image).map_err(|fault| fault.to_string())?;
        self.written = (self.written + image.len() as u64) % QUEUE_BYTES;
        self.write(ITS + u64::from(gits::CWRITER.offset()), AccessWidth::Double, self.written)
    }

    fn write(&self, address: u64, width: AccessWidth, value: u64) -> Result<(), String> {
        self.gic.write(address, width, value).map_err(|error| error.to_string())
    }

    /// A device's message.
    #[inline]
    pub(crate) fn send(&self, device: u32, event: u32) -> Delivery {
        self.doorbell
            .signal_msi(DeviceId::new(device), MsiMessage { address: self.address, data: event })
    }
}

/// The guest acknowledges and ends an interrupt; 1023 if there is none.
#[inline]
pub(crate) fn take(vcpu: &mut Vcpu) -> u64 {
    let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap_or(NOTHING);
    if intid != NOTHING {
        let _ = vcpu.write_sysreg(icc::EOIR1.encoding(), intid);
    }
    intid
}

/// The INTID that says that nothing is pending.
pub(crate) const NOTHING: u64 = 1023;
