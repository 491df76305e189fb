//! Guest of the model, with two vCPUs and an ITS.

use crate::snapshot::memory::Memory;
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::icc::SysRegEncoding;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::{gicd, gicr, icc};
use msi_types::{DeviceId, EventId, MsiMessage};
use std::sync::Arc;
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::saved_state::SavedState;
use vgic::{GuestMemory as _, Vcpu, Vgic, VgicConfig};
use vgic_kvm::snapshot::{KvmSnapshot, SnapshotCpu};
use vgic_kvm::{KvmView, kvm_config, kvm_its_config};

pub(super) const ITS: u64 = 0x0808_0000;
const CPUS: u16 = 2;
pub(super) const QUEUE: u64 = 0x4001_0000;
pub(super) const DEVICES: u64 = 0x4002_0000;
pub(super) const COLLECTIONS: u64 = 0x4003_0000;
pub(super) const CONFIG: u64 = 0x4004_0000;
pub(super) const PENDING: u64 = 0x4006_0000;
pub(super) const TRANSLATIONS: u64 = 0x4008_0000;
/// DeviceID of the guest's device. The guest maps event n of the device to LPI 8192 + n and to
/// collection n modulo 2.
pub(super) const DEVICE: DeviceId = DeviceId::new(8);
pub(super) const EVENTS: u32 = 4;
/// INTID of an SPI that is enabled and routed to vCPU 0.
pub(super) const SPI: u32 = 40;

pub(super) struct Guest {
    pub(super) gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    ram: Arc<Memory>,
    commands: u32,
}

impl Guest {
    /// Creates a guest that is ready to receive its device's messages.
    pub(super) fn new() -> Self {
        Self::with(kvm_config(CPUS, 96).with_its(vec![kvm_its_config(ITS)]))
    }

    /// Creates the same guest on a machine with another configuration, which must have two vCPUs
    /// and an ITS.
    pub(super) fn with(config: VgicConfig) -> Self {
        let mut guest = Self::off(config);
        guest.start_distributor();
        (0..CPUS.into()).for_each(|cpu| guest.start_cpu(cpu, PENDING + 0x1_0000 * cpu as u64));
        guest.start_its();
        guest.map();
        guest
    }

    /// Creates a guest that has not yet programmed its GIC.
    pub(super) fn off(config: VgicConfig) -> Self {
        let ram = Arc::new(Memory::everywhere());
        ram.write(CONFIG, &[0xa1; 0x2000]).unwrap();
        let (gic, vcpus) = Vgic::new(config, ram.clone(), Arc::new(|_| ())).unwrap();
        Self { gic, vcpus, ram, commands: 0 }
    }

    pub(super) fn bare_config() -> VgicConfig {
        kvm_config(CPUS, 96).with_its(vec![kvm_its_config(ITS)])
    }

    pub(super) fn config_with(its: ItsConfig) -> VgicConfig {
        VgicConfig::new(CPUS).with_lpi_id_bits(Some(16)).with_its(vec![its])
    }

    pub(super) fn start_distributor(&self) {
        let at = |offset: u32| self.gic.config().distributor + u64::from(offset);
        self.write(at(gicd::IGROUPR.offset() + 4), 0xffff_ffff);
        self.write(at(gicd::ISENABLER.offset() + 4), 1 << (SPI - 32));
        self.write(at(gicd::CTLR.offset()), 2);
    }

    pub(super) fn start_cpu(&mut self, cpu: usize, pending: u64) {
        let frame = self.frame(cpu);
        self.msr(cpu, icc::PMR.encoding(), 0xf8);
        self.msr(cpu, icc::IGRPEN1.encoding(), 1);
        self.write(frame + u64::from(gicr::WAKER.offset()), 0);
        let config = gicr::Propbaser::new().with_id_bits_minus_one(13).with_address(CONFIG);
        let pending = gicr::Pendbaser::new().with_address(pending);
        let (propbaser, pendbaser) = (gicr::PROPBASER.offset(), gicr::PENDBASER.offset());
        self.gic
            .write_until_done(frame + u64::from(propbaser), Double, config.into_bits())
            .unwrap();
        self.gic
            .write_until_done(frame + u64::from(pendbaser), Double, pending.into_bits())
            .unwrap();
        self.enable_lpis(cpu, true);
    }

    pub(super) fn enable_lpis(&self, cpu: usize, on: bool) {
        let control = gicr::Ctlr::new().with_enable_lpis(on);
        let register = self.frame(cpu) + u64::from(gicr::CTLR.offset());
        self.write(register, control.into_bits().into());
        let read = || u32::try_from(self.gic.read(register, Word).unwrap()).unwrap();
        while gicr::Ctlr::from(read()).rwp() {}
    }

    pub(super) fn start_its(&self) {
        let table = |address| {
            Baser::new().with_page_size(PageSize::Size64K).with_valid(true).with_address(address)
        };
        self.write_its(gits::BASER.get(0).unwrap().offset(), table(DEVICES).into_bits());
        self.write_its(gits::BASER.get(1).unwrap().offset(), table(COLLECTIONS).into_bits());
        self.start_queue();
    }

    /// Sets up the command queue, and enables the ITS.
    pub(super) fn start_queue(&self) {
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        self.write_its(gits::CBASER.offset(), queue.into_bits());
        self.write(ITS + u64::from(gits::CTLR.offset()), 1);
    }

    fn map(&mut self) {
        for collection in 0..CPUS {
            self.map_collection(collection, collection, MapAction::Map);
        }
        let (itt, action) = (TRANSLATIONS, MapAction::Map);
        self.run(Command::Mapd { device: DEVICE, itt, event_bits_minus_one: 3, action });
        for event in 0..EVENTS {
            self.map_event(event, 8192 + event, u16::from(event % 2 != 0));
        }
    }

    pub(super) fn map_collection(&mut self, collection: u16, cpu: u16, action: MapAction) {
        let target = RdBase::from_processor_number(cpu);
        self.run(Command::Mapc { collection: CollectionId::new(collection), target, action });
    }

    pub(super) fn map_event(&mut self, event: u32, intid: u32, collection: u16) {
        let (event, collection) = (EventId::new(event), CollectionId::new(collection));
        self.run(Command::Mapti { device: DEVICE, event, intid, collection });
    }

    pub(super) fn run(&mut self, command: Command) {
        for (at, word) in (0..).zip(command.encode()) {
            let address = QUEUE + u64::from(self.commands) * 32 + 8 * at;
            self.ram.write_u64(address, word).unwrap();
        }
        self.commands += 1;
        let written = Cwriter::at_offset(self.commands * 32);
        self.write_its(gits::CWRITER.offset(), written.into_bits());
    }

    /// Writes the configuration byte of an event's LPI, and invalidates the LPI's cached
    /// configuration (INV).
    pub(super) fn configure(&mut self, event: u32, byte: u8) {
        self.ram.write(CONFIG + u64::from(event), &[byte]).unwrap();
        self.run(Command::Inv { device: DEVICE, event: EventId::new(event) });
    }

    /// Sends the message for an event of the device.
    pub(super) fn send(&self, event: u32) {
        let message = MsiMessage { address: ITS + 0x1_0040, data: event };
        self.gic.its(0).unwrap().signal_msi(DEVICE, message);
    }

    /// Acknowledges an interrupt.
    pub(super) fn take(&mut self, cpu: usize) -> u64 {
        self.vcpus[cpu].read_sysreg(icc::IAR1.encoding()).unwrap()
    }

    pub(super) fn save(&mut self) -> SavedState {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic.save().unwrap()
    }

    /// Saves the machine through KVM's attributes, and returns the snapshot.
    pub(super) fn kvm(&mut self) -> KvmSnapshot {
        let state = self.save();
        let config = self.gic.config().clone();
        let mut view = KvmView::new(&config, state, &*self.ram).unwrap();
        let cpus = config
            .cpus
            .iter()
            .map(|cpu| SnapshotCpu::new(cpu.affinity, cpu.processor_number, Some(false)));
        KvmSnapshot::take(&mut view, cpus.collect(), 1, &*self.ram).unwrap()
    }

    pub(super) fn frame(&self, cpu: usize) -> u64 {
        let region = self.gic.config().redistributors[0];
        region.base + region.stride * cpu as u64
    }

    pub(super) fn write(&self, address: u64, value: u64) {
        self.gic.write_until_done(address, Word, value).unwrap();
    }

    fn write_its(&self, offset: u32, value: u64) {
        self.gic.write_until_done(ITS + u64::from(offset), Double, value).unwrap();
    }

    fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.vcpus[cpu].write_sysreg(register, value).unwrap();
    }
}
