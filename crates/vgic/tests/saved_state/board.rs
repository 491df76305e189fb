//! A test machine with an ITS whose guest has completed its setup, and functions that save and
//! restore the machine.

use doorbell_test_support::guest::{Kicks, Ram, ram};
use gic_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter, PageSize};
use gic_arch::icc::SysRegEncoding;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::lpi::Config;
use gic_arch::{IntId, Priority, Reg, RegisterValue, gicd, gicr, icc};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Level, Line, MsiMessage, SetLine};
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::saved_state::{RestoreError, SavedState};
use vgic::{AccessWidth, GuestMemory, Paused, Vcpu, Vgic, VgicConfig, VmMemory};

pub(crate) const ITS: u64 = 0x0808_0000;
pub(crate) const CPUS: u16 = 3;
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 2 << 20;
const QUEUE: u64 = RAM;
const DEVICES: u64 = RAM + 0x1_0000;
const COLLECTIONS: u64 = RAM + 0x2_0000;
const CONFIG: u64 = RAM + 0x4_0000;
const PENDING: u64 = RAM + 0x8_0000;
const COMMANDS: u32 = 0x1_0000;

pub(crate) struct Board {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) ram: Arc<VmMemory<Ram>>,
    pub(crate) kicks: Arc<Kicks>,
}

/// Returns the configuration of a machine with every feature of the model, and three vCPUs with
/// sparse affinities.
pub(crate) fn config() -> VgicConfig {
    let mut config = VgicConfig::new(CPUS)
        .with_spis(64)
        .with_extended_spis(32)
        .with_extended_ppis(32)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(ITS)])
        .with_one_of_n(true)
        .with_message_based_spis(true)
        .with_redistributor_invalidation(true);
    for (cpu, aff1) in config.cpus.iter_mut().zip([0, 7, 3]) {
        cpu.affinity = gic_arch::Affinity::new(0, 0, aff1, 1);
    }
    config
}

impl Board {
    /// Creates a machine in its reset state.
    pub(crate) fn new(config: VgicConfig) -> Self {
        Self::over(config, Arc::new(VmMemory(ram(RAM, RAM_BYTES))))
    }

    /// Creates a machine in its reset state, with existing guest memory.
    pub(crate) fn over(config: VgicConfig, ram: Arc<VmMemory<Ram>>) -> Self {
        let kicks = Arc::new(Kicks::new(config.cpus.len()));
        let (gic, vcpus) = Vgic::new(config, ram.clone(), kicks.clone()).unwrap();
        Self { gic, vcpus, ram, kicks }
    }

    /// Creates a machine with the interrupts, groups, LPIs and ITS enabled, as by a kernel at boot.
    /// LPIs have priority 0xa0, and collection n is mapped to vCPU n.
    pub(crate) fn running() -> Self {
        let mut board = Self::new(config());
        board.start();
        board
    }

    pub(crate) fn start(&mut self) {
        self.start_cpus();
        let table =
            |at| Baser::new().with_page_size(PageSize::Size64K).with_address(at).with_valid(true);
        self.write_its(gits::BASER.get(0).unwrap(), table(DEVICES));
        self.write_its(gits::BASER.get(1).unwrap(), table(COLLECTIONS));
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        self.write_its(gits::CBASER, queue);
        self.write_its(gits::CTLR, Ctlr::new().with_enabled(true));
        self.run((0..CPUS).map(|cpu| mapc(cpu, cpu)));
    }

    /// Performs the setup of [`start`](Self::start) except for the ITS.
    pub(crate) fn start_cpus(&mut self) {
        for cpu in 0..self.vcpus.len() {
            self.start_cpu(cpu);
        }
        for register in gicd::IGROUPR.registers().iter().chain(gicd::IGROUPR_E.registers().iter()) {
            self.write_gicd(register, 0xffff_ffff);
        }
        self.write_gicd(gicd::CTLR, gicd::Ctlr::from(3));
    }

    fn start_cpu(&mut self, cpu: usize) {
        self.write_gicr(cpu, gicr::WAKER, gicr::Waker::new());
        self.msr(cpu, icc::PMR.encoding(), 0xff);
        self.msr(cpu, icc::IGRPEN1.encoding(), 1);
        for register in gicr::IGROUPR.registers().iter() {
            self.write_gicr(cpu, register, 0xffff_ffff);
        }
        self.provide_lpi_tables(cpu);
        self.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    }

    /// Sets up the LPI tables of a redistributor, which must be done before the guest sets
    /// `EnableLPIs`.
    pub(crate) fn provide_lpi_tables(&self, cpu: usize) {
        for lpi in 8192..8192 + 256 {
            self.configure(lpi, true, 0xa0);
        }
        let propbaser = gicr::Propbaser::new().with_id_bits_minus_one(15).with_address(CONFIG);
        self.write_gicr(cpu, gicr::PROPBASER, propbaser);
        let pending = PENDING + 0x1_0000 * u64::try_from(cpu).unwrap();
        self.write_gicr(cpu, gicr::PENDBASER, gicr::Pendbaser::new().with_address(pending));
    }

    /// Saves the machine.
    pub(crate) fn save(&mut self) -> SavedState {
        let gic = self.gic.clone();
        let _paused = self.pause();
        gic.save().unwrap()
    }

    /// Pauses all vCPUs.
    pub(crate) fn pause(&mut self) -> Vec<Paused<'_>> {
        self.vcpus.iter_mut().map(Vcpu::pause).collect()
    }

    /// Serializes the machine's state and returns a new machine that was restored from it.
    pub(crate) fn moved(mut self) -> Self {
        let sent = serde_json::to_string(&self.save()).unwrap();
        let mut other = Self::over(self.gic.config().clone(), self.ram);
        other.restore(&serde_json::from_str(&sent).unwrap());
        other
    }

    pub(crate) fn restore(&mut self, saved: &SavedState) {
        self.try_restore(saved).unwrap();
    }

    pub(crate) fn try_restore(&mut self, saved: &SavedState) -> Result<(), RestoreError> {
        let gic = self.gic.clone();
        let _paused = self.pause();
        gic.restore(saved)
    }

    pub(crate) fn copy_memory_to(&self, other: &Self) {
        let mut bytes = vec![0; RAM_BYTES];
        self.ram.read(RAM, &mut bytes).unwrap();
        other.ram.write(RAM, &bytes).unwrap();
    }

    /// Writes an LPI's configuration byte.
    pub(crate) fn configure(&self, lpi: u32, enable: bool, priority: u8) {
        let config = Config::new().with_enable(enable).with_priority(Priority::new(priority));
        self.ram.write(CONFIG + u64::from(lpi - 8192), &[config.into_bits()]).unwrap();
    }

    /// Executes ITS commands.
    pub(crate) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        self.queue(commands);
        self.finish_queue();
        assert_eq!(self.gic.command_faults(0).unwrap().count, 0);
    }

    /// Polls until the queue is empty.
    pub(crate) fn finish_queue(&self) {
        for _ in 0..1000 {
            if self.read_its(gits::CREADR) == self.read_its(gits::CWRITER) {
                return;
            }
        }
        panic!("the queue does not become empty");
    }

    /// Writes ITS commands to the queue, and updates `GITS_CWRITER`.
    pub(crate) fn queue(&self, commands: impl IntoIterator<Item = Command>) {
        self.write_its(gits::CWRITER, self.prepare(commands));
    }

    /// Writes ITS commands to the queue, and returns the value for `GITS_CWRITER`.
    pub(crate) fn prepare(&self, commands: impl IntoIterator<Item = Command>) -> Cwriter {
        let mut offset = Cwriter::from_bits(self.read_its(gits::CWRITER)).offset();
        for command in commands {
            let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
            self.ram.write(QUEUE + u64::from(offset), &image).unwrap();
            offset = (offset + 32) % COMMANDS;
        }
        Cwriter::at_offset(offset)
    }

    /// Sends a device's message.
    pub(crate) fn send(&self, device: u32, event: u32) -> Delivery {
        let address = ITS + u64::from(gits::TRANSLATER.offset());
        self.gic
            .its(0)
            .unwrap()
            .signal_msi(DeviceId::new(device), MsiMessage { address, data: event })
    }

    fn frame(&self, cpu: usize) -> u64 {
        let region = self.gic.config().redistributors[0];
        region.base + region.stride * cpu as u64
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

    pub(crate) fn write_its<V: RegisterValue, A>(&self, register: Reg<V, A>, value: V) {
        self.write_at(ITS, register, value);
    }

    fn write_at<V: RegisterValue, A>(&self, base: u64, register: Reg<V, A>, value: V) {
        let raw: V::Raw = value.into();
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.gic.write_until_done(base + u64::from(register.offset()), width, raw.into()).unwrap();
    }

    pub(crate) fn read_its<V: RegisterValue, A>(&self, register: Reg<V, A>) -> u64 {
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        self.gic.read(ITS + u64::from(register.offset()), width).unwrap()
    }

    /// Enables an SPI.
    pub(crate) fn enable_spi(&self, intid: u32) {
        let bit = gicd::ISENABLER.locate(IntId::new(intid)).unwrap();
        self.write_gicd(bit.register(), bit.mask());
    }

    /// Enables an SGI or PPI.
    pub(crate) fn enable_private(&self, cpu: usize, intid: u32) {
        let bit = gicr::ISENABLER.locate(IntId::new(intid)).unwrap();
        self.write_gicr(cpu, bit.register(), bit.mask());
    }

    pub(crate) fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.vcpus[cpu].write_sysreg(register, value).unwrap();
    }

    pub(crate) fn mrs(&mut self, cpu: usize, register: SysRegEncoding) -> u64 {
        self.vcpus[cpu].read_sysreg(register).unwrap()
    }

    /// Reads `ICC_IAR1_EL1`.
    pub(crate) fn acknowledge(&mut self, cpu: usize) -> u32 {
        u32::try_from(self.mrs(cpu, icc::IAR1.encoding())).unwrap()
    }

    /// Writes `ICC_EOIR1_EL1`.
    pub(crate) fn end(&mut self, cpu: usize, intid: u32) {
        self.msr(cpu, icc::EOIR1.encoding(), intid.into());
    }

    /// Handles every signaled interrupt, and lowers the line if the interrupt is level-sensitive.
    pub(crate) fn handle_all(&mut self, cpu: usize) -> Vec<u32> {
        let mut handled = Vec::new();
        for _ in 0..100 {
            let intid = self.acknowledge(cpu);
            if intid == 1023 {
                return handled;
            }
            self.lower(cpu, intid);
            self.end(cpu, intid);
            self.msr(cpu, icc::DIR.encoding(), intid.into());
            handled.push(intid);
        }
        panic!("interrupts do not end: {handled:?}");
    }

    fn lower(&self, cpu: usize, intid: u32) {
        let cpu = Cpu::new(u32::try_from(cpu).unwrap());
        self.gic.set_line(Line::Ppi { cpu, intid }, Level::Low);
        self.gic.set_line(Line::Spi(intid), Level::Low);
        if self.gic.config().message_based_spis {
            self.write_gicd(gicd::CLRSPI_NSR, intid);
        }
    }
}

pub(crate) fn mapd(device: u32, bits: u8, itt: u64) -> Command {
    let device = DeviceId::new(device);
    Command::Mapd { device, itt, event_bits_minus_one: bits - 1, action: MapAction::Map }
}

pub(crate) fn mapc(collection: u16, cpu: u16) -> Command {
    let target = RdBase::from_processor_number(cpu);
    Command::Mapc { collection: CollectionId::new(collection), target, action: MapAction::Map }
}

pub(crate) fn unmapc(collection: u16) -> Command {
    let target = RdBase::from_processor_number(0);
    Command::Mapc { collection: CollectionId::new(collection), target, action: MapAction::Unmap }
}

pub(crate) fn mapti(device: u32, event: u32, intid: u32, collection: u16) -> Command {
    let (device, event) = (DeviceId::new(device), EventId::new(event));
    Command::Mapti { device, event, intid, collection: CollectionId::new(collection) }
}

pub(crate) fn discard(device: u32, event: u32) -> Command {
    Command::Discard { device: DeviceId::new(device), event: EventId::new(event) }
}

pub(crate) fn movall(from: u16, to: u16) -> Command {
    let [from, to] = [from, to].map(RdBase::from_processor_number);
    Command::Movall { from, to }
}
