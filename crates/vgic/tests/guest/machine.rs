//! A small machine for tests: memory, a kick counter, and a guest's register accesses.

use doorbell_test_support::guest::{Kicks, Ram, ram};
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::icc::SysRegEncoding;
use gic_arch::its::Command;
use gic_arch::{Reg, RegisterValue, gicd, gicr, icc};
use msi_types::{Delivery, DeviceId, Kick, MsiMessage};
use std::sync::Arc;
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, GuestMemory, Vcpu, Vgic, VgicConfig, VmMemory};

/// Address at which memory starts.
pub(crate) const RAM: u64 = 0x4000_0000;
/// Base of the ITS that [`Machine::start_its`] sets up. The machine's configuration must place the
/// ITS at this address.
pub(crate) const ITS: u64 = 0x0808_0000;
/// Command queue of the ITS.
pub(crate) const QUEUE: u64 = RAM;
const QUEUE_BYTES: u32 = 0x1_0000;
pub(crate) const DEVICES: u64 = RAM + 0x1_0000;
pub(crate) const COLLECTIONS: u64 = RAM + 0x2_0000;

pub(crate) fn memory() -> Arc<VmMemory<Ram>> {
    Arc::new(VmMemory(ram(RAM, 4 << 20)))
}

/// A machine, its vCPUs and its memory.
pub(crate) struct Machine {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) ram: Arc<VmMemory<Ram>>,
    pub(crate) kicks: Arc<Kicks>,
}

impl Machine {
    pub(crate) fn new(config: VgicConfig) -> Self {
        Self::over(config, memory())
    }

    /// Creates a machine with existing guest memory.
    pub(crate) fn over(config: VgicConfig, ram: Arc<VmMemory<Ram>>) -> Self {
        let kicks = Arc::new(Kicks::new(config.cpus.len()));
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kicks.clone()).unwrap();
        Self { gic, vcpus, ram, kicks }
    }

    /// Creates a machine and calls [`start`](Self::start).
    pub(crate) fn running(config: VgicConfig) -> Self {
        let mut machine = Self::new(config);
        machine.start();
        machine
    }

    /// Saves the machine.
    pub(crate) fn save(&mut self) -> SavedState {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic.save().unwrap()
    }

    /// Restores a saved state.
    pub(crate) fn restore(&mut self, saved: &SavedState) {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic.restore(saved).unwrap();
    }

    /// Creates a machine with the given kick handler.
    pub(crate) fn kicking(config: VgicConfig, kick: Arc<dyn Kick>) -> Self {
        let ram = memory();
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kick).unwrap();
        Self { gic, vcpus, ram, kicks: Arc::new(Kicks::new(0)) }
    }

    /// Wakes all redistributors, sets the lowest priority mask on all CPUs, and enables both
    /// groups. Puts all interrupts in Group 1.
    pub(crate) fn start(&mut self) {
        for cpu in 0..self.vcpus.len() {
            self.write_gicr(cpu, gicr::WAKER, gicr::Waker::new());
            self.msr(cpu, icc::PMR.encoding(), 0xff);
            self.msr(cpu, icc::IGRPEN1.encoding(), 1);
            self.write(
                self.frame(cpu) + u64::from(gicr::IGROUPR.offset()),
                AccessWidth::Word,
                0xffff_ffff,
            );
        }
        for register in gicd::IGROUPR.registers().iter() {
            self.write_gicd(register, 0xffff_ffff);
        }
        for register in gicd::IGROUPR_E.registers().iter() {
            self.write_gicd(register, 0xffff_ffff);
        }
        self.write_gicd(gicd::CTLR, gicd::Ctlr::from(3));
    }

    /// Enables LPIs at every vCPU. The addresses of their pending tables are 64 KiB apart.
    pub(crate) fn enable_lpis(&self, id_bits: u8, configuration: u64, pending: u64) {
        for (cpu, pending) in (0..self.vcpus.len()).zip((pending..).step_by(0x1_0000)) {
            let tables = Propbaser::new().with_id_bits_minus_one(id_bits - 1);
            self.write_gicr(cpu, gicr::PROPBASER, tables.with_address(configuration));
            self.write_gicr(cpu, gicr::PENDBASER, Pendbaser::new().with_address(pending));
            self.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_enable_lpis(true));
        }
    }

    /// Provides the tables and the command queue of the ITS, and enables the ITS.
    pub(crate) fn start_its(&self) {
        for (index, address) in [(0, DEVICES), (1, COLLECTIONS)] {
            let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
            self.write_at(ITS, gits::BASER.get(index).unwrap(), table.with_address(address));
        }
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        self.write_at(ITS, gits::CBASER, queue);
        self.write_at(ITS, gits::CTLR, gits::Ctlr::new().with_enabled(true));
    }

    /// Writes commands to the queue, and updates `GITS_CWRITER` once.
    pub(crate) fn queue(&self, commands: impl IntoIterator<Item = Command>) {
        let written = self.read(ITS + u64::from(gits::CWRITER.offset()), AccessWidth::Double);
        let mut written = Cwriter::from_bits(written).offset();
        for command in commands {
            let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
            self.ram.write(QUEUE + u64::from(written), &image).unwrap();
            written = (written + 32) % QUEUE_BYTES;
        }
        self.write_at(ITS, gits::CWRITER, Cwriter::at_offset(written));
    }

    /// Returns `true` if every queued command was executed.
    pub(crate) fn is_queue_done(&self) -> bool {
        let read = |register: u32| self.read(ITS + u64::from(register), AccessWidth::Double);
        read(gits::CREADR.offset()) == read(gits::CWRITER.offset())
    }

    /// Executes ITS commands, and checks that the queue becomes empty.
    pub(crate) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        self.queue(commands);
        assert!(self.is_queue_done());
        assert_eq!(self.gic.command_faults(0).unwrap().count, 0);
    }

    /// Sends a device's message to the ITS.
    pub(crate) fn send(&self, device: u32, event: u32) -> Delivery {
        send(&self.gic, device, event)
    }

    pub(crate) fn frame(&self, cpu: usize) -> u64 {
        let regions = &self.gic.config().redistributors;
        let mut frames = regions.iter().flat_map(|region| {
            (0..u64::from(region.count)).map(|index| region.base + index * region.stride)
        });
        frames.nth(cpu).unwrap()
    }

    pub(crate) fn write(&self, address: u64, width: AccessWidth, value: u64) {
        self.gic.write_until_done(address, width, value).unwrap();
    }

    pub(crate) fn read(&self, address: u64, width: AccessWidth) -> u64 {
        self.gic.read(address, width).unwrap()
    }

    pub(crate) fn write_gicd<V: RegisterValue, A>(&self, register: Reg<V, A>, value: V) {
        self.write_at(self.gic.config().distributor, register, value);
    }

    pub(crate) fn write_gicr<V: RegisterValue, A>(
        &self,
        cpu: usize,
        register: Reg<V, A>,
        value: V,
    ) {
        self.write_at(self.frame(cpu), register, value);
    }

    fn write_at<V: RegisterValue, A>(&self, base: u64, register: Reg<V, A>, value: V) {
        let raw: V::Raw = value.into();
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.write(base + u64::from(register.offset()), width, raw.into());
    }

    pub(crate) fn read_gicd<V: RegisterValue, A>(&self, register: Reg<V, A>) -> u64 {
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.read(self.gic.config().distributor + u64::from(register.offset()), width)
    }

    pub(crate) fn read_gicr<V: RegisterValue, A>(&self, cpu: usize, register: Reg<V, A>) -> u64 {
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.read(self.frame(cpu) + u64::from(register.offset()), width)
    }

    /// Enables SPI `intid`.
    pub(crate) fn enable_spi(&self, intid: u32) {
        let bit = gicd::ISENABLER.locate(gic_arch::IntId::new(intid)).unwrap();
        self.write_gicd(bit.register(), bit.mask());
    }

    /// Makes SPI `intid` edge-triggered.
    pub(crate) fn make_edge(&self, intid: u32) {
        let bits = gicd::ICFGR.locate(gic_arch::IntId::new(intid)).unwrap();
        let old = u32::try_from(self.read_gicd(bits.register())).unwrap();
        self.write_gicd(bits.register(), bits.insert(old, 2));
    }

    pub(crate) fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.vcpus[cpu].write_sysreg(register, value).unwrap();
    }

    pub(crate) fn mrs(&mut self, cpu: usize, register: SysRegEncoding) -> u64 {
        self.vcpus[cpu].read_sysreg(register).unwrap()
    }

    /// Reads `ICC_IAR1_EL1`.
    pub(crate) fn acknowledge(&mut self, cpu: usize) -> u64 {
        self.mrs(cpu, icc::IAR1.encoding())
    }

    /// Writes `ICC_EOIR1_EL1`.
    pub(crate) fn end(&mut self, cpu: usize, intid: u64) {
        self.msr(cpu, icc::EOIR1.encoding(), intid);
    }
}

/// Sends a device's message to the ITS.
pub(crate) fn send(gic: &Vgic, device: u32, event: u32) -> Delivery {
    let address = ITS + u64::from(gits::TRANSLATER.offset());
    let message = MsiMessage { address, data: event };
    gic.its(0).unwrap().signal_msi(DeviceId::new(device), message)
}
