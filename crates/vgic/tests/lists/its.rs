//! A machine with an ITS whose guest has mapped what there is to map.

use crate::machine::{Machine, RAM};
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::lpi::Config;
use gic_arch::{Priority, gicr};
use msi_types::{Delivery, DeviceId, EventId, MsiMessage};
use std::cell::Cell;
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, VgicConfig};

const ITS: u64 = 0x0808_0000;
const QUEUE: u64 = RAM;
const TABLES: u64 = RAM + 0x2_0000;
const CONFIGURATION: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x20_0000;
pub(crate) const DEVICE: DeviceId = DeviceId::new(1);

/// Device 1 has 16 events, mapped to LPIs from 8192 on, of ever less urgent priorities; collection
/// n is vCPU n.
pub(crate) struct Translated {
    pub(crate) machine: Machine,
    written: Cell<u32>,
}

impl Translated {
    pub(crate) const EVENTS: u32 = 16;

    pub(crate) fn new(cpus: u16) -> Self {
        Self::configured(cpus, |config| config)
    }

    pub(crate) fn configured(cpus: u16, with: impl FnOnce(VgicConfig) -> VgicConfig) -> Self {
        let its = vec![ItsConfig::new(ITS)];
        let config = with(VgicConfig::new(cpus).with_lpi_id_bits(Some(14)).with_its(its));
        let this = Self { machine: Machine::running(config), written: Cell::new(0) };
        for event in 0..Self::EVENTS {
            this.configure(event, true);
        }
        for cpu in 0..usize::from(cpus) {
            let tables = Propbaser::new().with_id_bits_minus_one(13).with_address(CONFIGURATION);
            let pending = Pendbaser::new().with_address(PENDING + 0x1_0000 * cpu as u64);
            this.machine.write_gicr(cpu, gicr::PROPBASER, tables);
            this.machine.write_gicr(cpu, gicr::PENDBASER, pending);
            this.machine.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_enable_lpis(true));
        }
        this.start_its(cpus);
        this
    }

    fn start_its(&self, cpus: u16) {
        let table =
            |at| Baser::new().with_page_size(PageSize::Size64K).with_address(at).with_valid(true);
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        let write = |offset: u32, value| self.machine.write(ITS + u64::from(offset), Double, value);
        write(gits::BASER.get(0).unwrap().offset(), table(TABLES).into_bits());
        write(gits::BASER.get(1).unwrap().offset(), table(TABLES + 0x1_0000).into_bits());
        write(gits::CBASER.offset(), queue.into_bits());
        self.machine.write(ITS + u64::from(gits::CTLR.offset()), Word, 1);
        self.run((0..cpus).map(|cpu| mapc(cpu, cpu)));
        self.run([Command::Mapd {
            device: DEVICE,
            itt: 0,
            event_bits_minus_one: 3,
            action: MapAction::Map,
        }]);
        self.run((0..Self::EVENTS).map(|event| mapti(event, 0)));
    }

    /// Writes the event's configuration byte.
    pub(crate) fn configure(&self, event: u32, enable: bool) {
        let priority = Priority::new(u8::try_from(0x40 + 8 * event).unwrap());
        let byte = Config::new().with_enable(enable).with_priority(priority).into_bits();
        self.machine.ram.write(CONFIGURATION + u64::from(event), &[byte]).unwrap();
    }

    /// Puts commands into the queue and rings.
    pub(crate) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
            self.machine.ram.write(QUEUE + u64::from(self.written.get()), &image).unwrap();
            self.written.set((self.written.get() + 32) % 0x1_0000);
        }
        let written = Cwriter::at_offset(self.written.get()).into_bits();
        self.machine.write(ITS + u64::from(gits::CWRITER.offset()), Double, written);
    }

    /// Is the queue worked off?
    pub(crate) fn is_done(&self) -> bool {
        let read = self.machine.read(ITS + u64::from(gits::CREADR.offset()), Double);
        read == u64::from(self.written.get())
    }

    pub(crate) fn send(&self, event: u32) -> Delivery {
        let address = ITS + u64::from(gits::TRANSLATER.offset());
        self.machine.gic.its(0).unwrap().signal_msi(DEVICE, MsiMessage { address, data: event })
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
