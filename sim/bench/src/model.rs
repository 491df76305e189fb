//! A virtual GIC with an ITS, programmed in the same way as by a driver.

use crate::probe::Fallible;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::lpi::Config;
use gic_arch::{Priority, gicd, gicr, gits, icc};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Kick, MsiMessage, SignalMsi};
use std::sync::{Arc, Mutex, PoisonError};
use vgic::its::ItsConfig;
use vgic::{AccessWidth, GuestMemory, MemoryFault, RedistributorRegion, Vcpu, Vgic, VgicConfig};

const RAM: u64 = 0x4000_0000;
const QUEUE: u64 = RAM;
const QUEUE_BYTES: u64 = 0x1_0000;
const DEVICES: u64 = RAM + 0x100_0000;
const COLLECTIONS: u64 = RAM + 0x200_0000;
const CONFIGURATION: u64 = RAM + 0x300_0000;
const PENDING: u64 = RAM + 0x400_0000;
/// Distance between two redistributors' pending tables, which leaves room for 20 INTID bits.
const PENDING_BYTES: u64 = 0x2_0000;
const ITS: u64 = 0x3000_0000;
pub(crate) const REDISTRIBUTORS: u64 = 0x60_0000_0000;
const FIRST_LPI: u32 = 8192;
/// Number of LPIs available with 16 INTID bits.
pub(crate) const LPIS: u32 = 0x1_0000 - FIRST_LPI;

/// Guest memory behind a lock. The lock does not affect the results, because the measured paths
/// don't access guest memory.
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

/// A [`Kick`] that does nothing, because the vCPUs poll.
pub(crate) struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

/// The measured machine.
pub(crate) struct MeasuredGic {
    pub(crate) gic: Arc<Vgic>,
    ram: Arc<FlatMemory>,
    doorbell: Arc<dyn SignalMsi<DeviceId>>,
    /// Address of the doorbell.
    address: u64,
    /// Offset of the next command in the ITS's queue, in bytes.
    written: u64,
}

/// A machine's size.
#[derive(Clone, Copy)]
pub(crate) struct GicSize {
    pub(crate) vcpus: u16,
    /// Maximum number of mapped events.
    pub(crate) budget: u32,
    pub(crate) lpi_id_bits: u8,
}

impl GicSize {
    /// Returns the GIC configuration.
    pub(crate) fn config(self) -> VgicConfig {
        let redistributors = RedistributorRegion::new(REDISTRIBUTORS, self.vcpus.into());
        VgicConfig::new(self.vcpus)
            .with_redistributors(vec![redistributors])
            .with_lpi_id_bits(Some(self.lpi_id_bits))
            .with_its_events(self.budget)
            .with_its(vec![ItsConfig::new(ITS)])
            .with_priority_bits(6)
            .with_redistributor_invalidation(true)
    }

    /// Returns the size of the guest memory for the tables, in bytes.
    pub(crate) fn ram_bytes(self) -> usize {
        let bytes = PENDING - RAM + PENDING_BYTES * u64::from(self.vcpus);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// Layout of the mapped devices and events.
#[derive(Clone, Copy)]
pub(crate) struct EventMapping {
    /// Number of devices. DeviceIDs start at 0.
    pub(crate) devices: u32,
    /// log2 of the number of events per device.
    pub(crate) event_bits: u8,
}

impl EventMapping {
    pub(crate) const fn new(devices: u32, event_bits: u8) -> Self {
        Self { devices, event_bits }
    }

    /// Returns the device and event for an LPI in [`MeasuredGic::mapped`], or the first such event
    /// if several share the LPI.
    pub(crate) fn event_of(self, intid: u64) -> (u32, u32) {
        let index = u32::try_from(intid).unwrap_or(0).saturating_sub(FIRST_LPI);
        (index >> self.event_bits, index & ((1 << self.event_bits) - 1))
    }
}

impl MeasuredGic {
    /// Creates a machine with one ITS and `targets` vCPUs, but at least two. The events are mapped
    /// to consecutive LPIs; after the last LPI, the mapping starts over at the first. Device n
    /// targets vCPU n modulo `targets`.
    pub(crate) fn mapped(
        mapping: EventMapping,
        targets: u16,
        kick: Arc<dyn Kick>,
    ) -> Fallible<(Self, Vec<Vcpu>)> {
        let size = GicSize { vcpus: targets.max(2), budget: 1 << 17, lpi_id_bits: 16 };
        let (mut model, vcpus) = Self::booted(size, kick)?;
        model.configure(LPIS)?;
        model.map(mapping, targets)?;
        Ok((model, vcpus))
    }

    /// Boots a machine with no mappings.
    pub(crate) fn booted(size: GicSize, kick: Arc<dyn Kick>) -> Fallible<(Self, Vec<Vcpu>)> {
        let ram = Arc::new(FlatMemory(Mutex::new(vec![0; size.ram_bytes()])));
        let (gic, mut vcpus) = Vgic::new(size.config(), ram.clone(), kick)?;
        let doorbell = gic.its(0).ok_or("the machine has no ITS")?;
        let address = ItsConfig::new(ITS).doorbell();
        let mut model = Self { gic, ram, doorbell, address, written: 0 };
        model.boot(&mut vcpus)?;
        Ok((model, vcpus))
    }

    /// Creates the same machine again, with the same guest memory.
    pub(crate) fn successor(&self) -> Fallible<(Arc<Vgic>, Vec<Vcpu>)> {
        Ok(Vgic::new(self.gic.config().clone(), self.ram.clone(), Arc::new(NoKick))?)
    }

    fn boot(&mut self, vcpus: &mut [Vcpu]) -> Fallible<()> {
        let config = self.gic.config();
        let id_bits_minus_one = u64::from(config.lpi_id_bits.unwrap_or(16)) - 1;
        let distributor = config.distributor;
        self.write(distributor + u64::from(gicd::CTLR.offset()), AccessWidth::Word, 2)?;
        for (vcpu, at) in vcpus.iter_mut().zip(0..) {
            let frame = redistributor(at);
            self.write(frame + u64::from(gicr::WAKER.offset()), AccessWidth::Word, 0)?;
            let tables = [
                (gicr::PROPBASER.offset(), CONFIGURATION | id_bits_minus_one),
                (gicr::PENDBASER.offset(), PENDING + PENDING_BYTES * u64::from(at)),
            ];
            for (register, value) in tables {
                self.write(frame + u64::from(register), AccessWidth::Double, value)?;
            }
            self.write(frame + u64::from(gicr::CTLR.offset()), AccessWidth::Word, 1)?;
            for (register, value) in [(icc::PMR.encoding(), 0xff), (icc::IGRPEN1.encoding(), 1)] {
                vcpu.write_sysreg(register, value)?;
            }
        }
        for (table, address) in (0..).zip([DEVICES, COLLECTIONS]) {
            let register = gits::BASER.get(table).ok_or("no table")?;
            let at = ITS + u64::from(register.offset());
            self.write(at, AccessWidth::Double, 1 << 63 | address)?;
        }
        let cbaser = 1 << 63 | QUEUE | (QUEUE_BYTES / 0x1000 - 1);
        self.write(ITS + u64::from(gits::CBASER.offset()), AccessWidth::Double, cbaser)?;
        self.write(ITS + u64::from(gits::CTLR.offset()), AccessWidth::Word, 1)
    }

    /// Enables the first `lpis` LPIs.
    pub(crate) fn configure(&self, lpis: u32) -> Fallible<()> {
        let byte = Config::new().with_enable(true).with_priority(Priority::new(0xa0)).into_bits();
        let bytes = vec![byte; lpis as usize];
        Ok(self.ram.write(CONFIGURATION, &bytes)?)
    }

    /// Maps events at the ITS, whose collections target the first `targets` vCPUs.
    pub(crate) fn map(&mut self, mapping: EventMapping, targets: u16) -> Fallible<()> {
        let events = 1u32 << mapping.event_bits;
        let lpis = self.gic.config().lpi_id_bits.map_or(LPIS, |bits| (1 << bits) - FIRST_LPI);
        for vcpu in 0..targets {
            let (collection, target) =
                (CollectionId::new(vcpu), RdBase::from_processor_number(vcpu));
            self.command(Command::Mapc { collection, target, action: MapAction::Map })?;
        }
        for device in 0..mapping.devices {
            self.command(map_device(device, mapping.event_bits, MapAction::Map))?;
            let target = u16::try_from(device % u32::from(targets)).unwrap_or(0);
            for event in 0..events {
                let lpi = FIRST_LPI + (device * events + event) % lpis;
                self.command(map_event(device, event, lpi, target))?;
            }
        }
        let faults = self.gic.command_faults(0).ok_or("no ITS")?;
        if faults.count == 0 { Ok(()) } else { Err(faults.to_string().into()) }
    }

    /// Posts one command, which the ITS executes immediately.
    pub(crate) fn command(&mut self, command: Command) -> Fallible<()> {
        let image = command.encode().map(u64::to_le_bytes);
        self.ram.write(QUEUE + self.written, image.as_flattened())?;
        self.written = (self.written + 32) % QUEUE_BYTES;
        let register = ITS + u64::from(gits::CWRITER.offset());
        self.write(register, AccessWidth::Double, self.written)
    }

    fn write(&self, address: u64, width: AccessWidth, value: u64) -> Fallible<()> {
        Ok(self.gic.write_until_done(address, width, value)?)
    }

    /// Sends a device's message to the ITS.
    #[inline]
    pub(crate) fn send(&self, device: u32, event: u32) -> Delivery {
        self.doorbell
            .signal_msi(DeviceId::new(device), MsiMessage { address: self.address, data: event })
    }
}

/// Returns the address of a vCPU's redistributor.
pub(crate) fn redistributor(vcpu: u16) -> u64 {
    REDISTRIBUTORS + gicr::STRIDE_V3 * u64::from(vcpu)
}

/// Returns a MAPD command.
pub(crate) fn map_device(device: u32, event_bits: u8, action: MapAction) -> Command {
    let event_bits_minus_one = event_bits.saturating_sub(1);
    Command::Mapd { device: DeviceId::new(device), itt: 0, event_bits_minus_one, action }
}

/// Returns a MAPTI command for a collection that targets a vCPU.
pub(crate) fn map_event(device: u32, event: u32, intid: u32, vcpu: u16) -> Command {
    let (device, event) = (DeviceId::new(device), EventId::new(event));
    Command::Mapti { device, event, intid, collection: CollectionId::new(vcpu) }
}

/// Acknowledges and ends an interrupt on the guest's behalf. Returns 1023 if none is pending.
#[inline]
pub(crate) fn take(vcpu: &mut Vcpu) -> u64 {
    let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap_or(NOTHING);
    if intid != NOTHING {
        let _ = vcpu.write_sysreg(icc::EOIR1.encoding(), intid);
    }
    intid
}

/// The special INTID returned when no interrupt is pending.
pub(crate) const NOTHING: u64 = 1023;
