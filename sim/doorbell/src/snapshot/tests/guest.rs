//! Guest of the model, with two vCPUs and an ITS.

use crate::snapshot::memory::Memory;
pub(super) use doorbell_test_support::guest::{COLLECTIONS, DEVICES, ITS, QUEUE};
use doorbell_test_support::guest::{Machine, RAM, inv, mapc, mapd, mapti};
use gic_arch::{gicd, gicr, icc};
use msi_types::DeviceId;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{GuestMemory as _, VgicConfig};
use vgic_kvm::snapshot::{KvmSnapshot, SnapshotCpu};
use vgic_kvm::{KvmView, kvm_config, kvm_its_config};

const CPUS: u16 = 2;
pub(super) const CONFIG: u64 = RAM + 0x4_0000;
pub(super) const PENDING: u64 = RAM + 0x6_0000;
pub(super) const TRANSLATIONS: u64 = RAM + 0x8_0000;
/// DeviceID of the guest's device. The guest maps event n of the device to LPI 8192 + n and to
/// collection n modulo 2.
pub(super) const DEVICE: DeviceId = DeviceId::new(8);
pub(super) const EVENTS: u32 = 4;
/// INTID of an SPI that is enabled and routed to vCPU 0.
pub(super) const SPI: u32 = 40;

pub(super) struct Guest(Machine<Memory>);

impl Deref for Guest {
    type Target = Machine<Memory>;

    fn deref(&self) -> &Machine<Memory> {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Machine<Memory> {
        &mut self.0
    }
}

impl Guest {
    /// Creates a guest that is ready to receive its device's messages.
    pub(super) fn new() -> Self {
        Self::with(Self::bare_config())
    }

    /// Creates the same guest on a machine with another configuration, which must have two vCPUs
    /// and an ITS.
    pub(super) fn with(config: VgicConfig) -> Self {
        let mut guest = Self::off(config);
        guest.start_distributor();
        (0..CPUS.into()).for_each(|cpu| guest.start_cpu(cpu, PENDING + 0x1_0000 * cpu as u64));
        guest.start_its();
        guest.run((0..CPUS).map(|cpu| mapc(cpu, cpu)));
        guest.run([mapd(DEVICE.get(), 4, TRANSLATIONS)]);
        (0..EVENTS)
            .for_each(|event| guest.map_event(event, 8192 + event, u16::from(event % 2 != 0)));
        guest
    }

    /// Creates a guest that has not yet programmed its GIC.
    pub(super) fn off(config: VgicConfig) -> Self {
        let ram = Arc::new(Memory::everywhere());
        ram.write(CONFIG, &[0xa1; 0x2000]).unwrap();
        Self(Machine::over(config, ram))
    }

    pub(super) fn bare_config() -> VgicConfig {
        kvm_config(CPUS, 96).with_its(vec![kvm_its_config(ITS)])
    }

    pub(super) fn config_with(its: ItsConfig) -> VgicConfig {
        VgicConfig::new(CPUS).with_lpi_id_bits(Some(16)).with_its(vec![its])
    }

    pub(super) fn start_distributor(&self) {
        self.write_gicd(gicd::IGROUPR.registers().get(1).unwrap(), 0xffff_ffff);
        self.enable_spi(SPI);
        self.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));
    }

    pub(super) fn start_cpu(&mut self, cpu: usize, pending: u64) {
        self.msr(cpu, icc::PMR.encoding(), 0xf8);
        self.msr(cpu, icc::IGRPEN1.encoding(), 1);
        self.write_gicr(cpu, gicr::WAKER, gicr::Waker::new());
        self.provide_lpi_tables(cpu, 14, CONFIG, pending);
        self.set_enable_lpis(cpu, true);
    }

    pub(super) fn map_event(&self, event: u32, intid: u32, collection: u16) {
        self.run([mapti(DEVICE.get(), event, intid, collection)]);
    }

    /// Writes the configuration byte of an event's LPI, and invalidates the LPI's cached
    /// configuration (INV).
    pub(super) fn configure(&self, event: u32, byte: u8) {
        self.ram.write(CONFIG + u64::from(event), &[byte]).unwrap();
        self.run([inv(DEVICE.get(), event)]);
    }

    /// Sends the message for an event of the device.
    pub(super) fn send(&self, event: u32) {
        self.0.send(DEVICE.get(), event);
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
}
