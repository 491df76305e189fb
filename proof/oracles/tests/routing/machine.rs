//! A machine with one vCPU, and a GIC with an ITS and a GICv2m frame. The tests program the GIC and
//! take interrupts on the guest's behalf.

use doorbell_test_support::guest::{Kicks, Ram, ram};
use gic_arch::icc;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use irq_routing::Inputs;
use msi_types::{DeviceId, EventId, MsiMessage};
use std::sync::Arc;
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, V2mConfig, Vcpu, Vgic, VgicConfig, VmMemory};

const RAM: u64 = 0x4000_0000;
const QUEUE: u64 = RAM;
const DEVICES: u64 = RAM + 0x1_0000;
const COLLECTIONS: u64 = RAM + 0x2_0000;
const CONFIGURATION: u64 = RAM + 0x3_0000;
const PENDING: u64 = RAM + 0x5_0000;
const RAM_BYTES: usize = 0x8_0000;
const ITS: u64 = 0x0808_0000;
const FRAME: u64 = 0x0802_0000;

/// The SPIs of the GICv2m frame.
pub(crate) const FRAME_SPIS: std::ops::Range<u32> = 80..96;
/// The first LPI.
pub(crate) const LPI: u32 = 8192;

pub(crate) struct Machine {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) vcpu: Vcpu,
    pub(crate) kicks: Arc<Kicks>,
    ram: Arc<VmMemory<Ram>>,
    written: u64,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let frame = V2mConfig::new(FRAME, FRAME_SPIS.start, 16);
        let config = VgicConfig::new(1)
            .with_lpi_id_bits(Some(16))
            .with_its(vec![ItsConfig::new(ITS)])
            .with_v2m(vec![frame]);
        let (ram, kicks) = (Arc::new(VmMemory(ram(RAM, RAM_BYTES))), Arc::new(Kicks::new(1)));
        let (gic, mut vcpus) = Vgic::new(config, ram.clone(), kicks.clone()).unwrap();
        let vcpu = vcpus.remove(0);
        let mut machine = Self { gic, vcpu, kicks, ram, written: 0 };
        machine.boot();
        machine
    }

    fn boot(&mut self) {
        let (distributor, redistributor) =
            (self.gic.config().distributor, self.gic.config().redistributors[0].base);
        self.ram.write(CONFIGURATION, &[0xa1; 64]).unwrap();
        for (address, width, value) in [
            (distributor, Word, 2),
            (redistributor + 0x14, Word, 0),
            (redistributor + 0x70, Double, CONFIGURATION | 15),
            (redistributor + 0x78, Double, PENDING),
            (redistributor, Word, 1),
            (ITS + 0x100, Double, 1 << 63 | DEVICES),
            (ITS + 0x108, Double, 1 << 63 | COLLECTIONS),
            (ITS + 0x80, Double, 1 << 63 | QUEUE),
            (ITS, Word, 1),
        ] {
            self.gic.write_until_done(address, width, value).unwrap();
        }
        self.vcpu.write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
        let (collection, target) = (CollectionId::new(0), RdBase::from_processor_number(0));
        self.command(Command::Mapc { collection, target, action: MapAction::Map });
    }

    /// Maps events 0 to 31 of the device, event n to LPI 8192 + n.
    pub(crate) fn map(&mut self, device: DeviceId) {
        let itt = RAM + 0x7_0000;
        self.command(Command::Mapd {
            device,
            itt,
            event_bits_minus_one: 4,
            action: MapAction::Map,
        });
        for event in 0..32 {
            let (intid, collection) = (LPI + event, CollectionId::new(0));
            self.command(Command::Mapti { device, event: EventId::new(event), intid, collection });
        }
        assert_eq!(self.gic.command_faults(0).unwrap().count, 0);
    }

    fn command(&mut self, command: Command) {
        let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
        self.ram.write(QUEUE + self.written, &image).unwrap();
        self.written = (self.written + 32) % 0x1000;
        self.gic.write_until_done(ITS + 0x88, Double, self.written).unwrap();
    }

    /// Enables an SPI on the guest's behalf, in Group 1, routed to the guest's CPU, and level- or
    /// edge-triggered.
    pub(crate) fn enable_spi(&self, intid: u32, edge: bool) {
        let distributor = self.gic.config().distributor;
        let (bank, bit) = (u64::from(intid / 32) * 4, 1 << (intid % 32));
        let (group, enable) = (distributor + 0x80 + bank, distributor + 0x100 + bank);
        let configuration = distributor + 0xc00 + u64::from(intid / 16) * 4;
        let groups = self.gic.read(group, Word).unwrap();
        self.gic.write_until_done(group, Word, groups | bit).unwrap();
        let triggers = self.gic.read(configuration, Word).unwrap();
        let trigger = 2 << (intid % 16 * 2);
        let triggers = if edge { triggers | trigger } else { triggers & !trigger };
        self.gic.write_until_done(configuration, Word, triggers).unwrap();
        self.gic.write_until_done(distributor + 0x6000 + u64::from(intid) * 8, Double, 0).unwrap();
        self.gic.write_until_done(enable, Word, bit).unwrap();
    }

    /// Enables a PPI on the guest's behalf, in Group 1.
    pub(crate) fn enable_ppi(&self, intid: u32) {
        let frame = self.gic.config().redistributors[0].base + 0x1_0000;
        let groups = self.gic.read(frame + 0x80, Word).unwrap();
        self.gic.write_until_done(frame + 0x80, Word, groups | 1 << intid).unwrap();
        self.gic.write_until_done(frame + 0x100, Word, 1 << intid).unwrap();
    }

    /// Acknowledges and ends all pending interrupts on the guest's behalf.
    pub(crate) fn take_all(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| {
            let intid = self.acknowledge();
            (intid != 1023).then(|| self.end(intid))
        })
        .collect()
    }

    pub(crate) fn acknowledge(&mut self) -> u64 {
        self.vcpu.read_sysreg(icc::IAR1.encoding()).unwrap()
    }

    pub(crate) fn end(&mut self, intid: u64) -> u64 {
        self.vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
        intid
    }

    pub(crate) fn inputs(&self) -> Inputs {
        Inputs::new(self.gic.clone())
            .with_its(self.gic.its(0).unwrap())
            .with_doorbells(self.gic.clone())
            .with_explainer(self.gic.clone())
    }
}

/// Returns a message for the ITS.
pub(crate) fn to_its(event: u32) -> MsiMessage {
    MsiMessage { address: ITS + 0x1_0040, data: event }
}

/// Returns a message for the GICv2m frame.
pub(crate) fn to_frame(spi: u32) -> MsiMessage {
    MsiMessage { address: FRAME + 0x40, data: spi }
}
