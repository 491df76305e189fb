//! A test machine with an ITS whose guest has mapped all events and collections.

use crate::machine::{ITS, Machine, RAM};
use gic_arch::Priority;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::lpi::Config;
use msi_types::{Delivery, DeviceId, EventId, Kick};
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{GuestMemory, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x20_0000;
pub(crate) const DEVICE: DeviceId = DeviceId::new(1);

/// A machine whose device 1 has 16 events, mapped to LPIs starting at 8192 in order of decreasing
/// priority. Collection n is mapped to vCPU n.
pub(crate) struct Translated {
    pub(crate) machine: Machine,
}

fn config(cpus: u16) -> VgicConfig {
    VgicConfig::new(cpus).with_lpi_id_bits(Some(14)).with_its(vec![ItsConfig::new(ITS)])
}

impl Translated {
    pub(crate) const EVENTS: u32 = 16;

    pub(crate) fn new(cpus: u16) -> Self {
        Self::configured(cpus, |config| config)
    }

    pub(crate) fn configured(cpus: u16, with: impl FnOnce(VgicConfig) -> VgicConfig) -> Self {
        Self::booted(cpus, Machine::new(with(config(cpus))))
    }

    /// Creates a machine with the given kick handler.
    pub(crate) fn kicking(cpus: u16, kick: Arc<dyn Kick>) -> Self {
        Self::booted(cpus, Machine::kicking(config(cpus), kick))
    }

    fn booted(cpus: u16, mut machine: Machine) -> Self {
        machine.start();
        let this = Self { machine };
        for event in 0..Self::EVENTS {
            this.configure(event, true);
        }
        this.machine.enable_lpis(14, CONFIGURATION, PENDING);
        this.machine.start_its();
        this.map(cpus);
        this
    }

    fn map(&self, cpus: u16) {
        self.run((0..cpus).map(|cpu| mapc(cpu, cpu)));
        self.run([Command::Mapd {
            device: DEVICE,
            itt: 0,
            event_bits_minus_one: 3,
            action: MapAction::Map,
        }]);
        self.run((0..Self::EVENTS).map(|event| mapti(event, 0)));
    }

    /// Writes the configuration byte of the event's LPI.
    pub(crate) fn configure(&self, event: u32, enable: bool) {
        let priority = Priority::new(u8::try_from(0x40 + 8 * event).unwrap());
        let byte = Config::new().with_enable(enable).with_priority(priority).into_bits();
        self.machine.ram.write(CONFIGURATION + u64::from(event), &[byte]).unwrap();
    }

    /// Returns whether the event's LPI is pending in vCPU 0's table in memory.
    pub(crate) fn is_saved(&self, event: u32) -> bool {
        let mut byte = [0];
        let lpi = 8192 + event;
        self.machine.ram.read(PENDING + u64::from(lpi / 8), &mut byte).unwrap();
        byte[0] & 1 << (lpi % 8) != 0
    }

    /// Writes commands to the queue, and updates `GITS_CWRITER`.
    pub(crate) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        self.machine.queue(commands);
    }

    /// Returns `true` if the queue is empty.
    pub(crate) fn is_done(&self) -> bool {
        self.machine.is_queue_done()
    }

    pub(crate) fn send(&self, event: u32) -> Delivery {
        self.machine.send(DEVICE.get(), event)
    }
}

pub(crate) fn mapti(event: u32, collection: u16) -> Command {
    let collection = CollectionId::new(collection);
    Command::Mapti { device: DEVICE, event: EventId::new(event), intid: 8192 + event, collection }
}

pub(crate) fn mapc(collection: u16, cpu: u16) -> Command {
    let (collection, target) = (CollectionId::new(collection), RdBase::from_processor_number(cpu));
    Command::Mapc { collection, target, action: MapAction::Map }
}

pub(crate) fn movi(event: u32, collection: u16) -> Command {
    let collection = CollectionId::new(collection);
    Command::Movi { device: DEVICE, event: EventId::new(event), collection }
}

pub(crate) fn discard(event: u32) -> Command {
    Command::Discard { device: DEVICE, event: EventId::new(event) }
}

pub(crate) fn clear(event: u32) -> Command {
    Command::Clear { device: DEVICE, event: EventId::new(event) }
}

pub(crate) fn inv(event: u32) -> Command {
    Command::Inv { device: DEVICE, event: EventId::new(event) }
}

pub(crate) fn movall(from: u16, to: u16) -> Command {
    Command::Movall {
        from: RdBase::from_processor_number(from),
        to: RdBase::from_processor_number(to),
    }
}

pub(crate) fn unmapd() -> Command {
    Command::Mapd { device: DEVICE, itt: 0, event_bits_minus_one: 0, action: MapAction::Unmap }
}

pub(crate) fn sync() -> Command {
    Command::Sync { target: RdBase::from_processor_number(0) }
}
