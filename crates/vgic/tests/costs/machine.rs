//! A test machine whose guest memory counts accesses and can stall reads of one address.

use doorbell_test_support::guest::Kicks;
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::its::{CollectionId, Command, Level1Entry, MapAction, RdBase};
use gic_arch::{Affinity, IntId, IntIdLocation, gicd, gicr, icc};
use msi_types::{Delivery, DeviceId, EventId, MsiMessage};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vgic::AccessWidth::{self, Double, Word};
use vgic::its::ItsConfig;
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, MAX_CPUS, MemoryFault, Vcpu, Vgic, VgicConfig};

const ITS: u64 = 0x0808_0000;
const QUEUE: u64 = 0x1_0000;
const QUEUE_BYTES: u64 = 0x1_0000;
const TABLES: u64 = 0x10_0000;
const TABLES_END: u64 = TABLES + (8 << 19);
const CONFIGURATION: u64 = 0x200_0000;
const RAM_BYTES: usize = 33 << 20;

/// The first LPI.
pub(crate) const FIRST: u32 = 8192;
/// An edge-triggered SPI.
pub(crate) const SPI: u32 = 40;
const SPURIOUS: u64 = 1023;
const PATIENCE: Duration = Duration::from_secs(30);

/// Guest memory, starting at address 0. Every LPI is configured as enabled, and all 2^19
/// first-level entries of the ITS's tables are valid; each points to a second-level table of 64
/// KiB.
pub(crate) struct Memory {
    words: Box<[AtomicU64]>,
    accesses: AtomicUsize,
    stall: Mutex<ReadStall>,
    changed: Condvar,
}

/// State of the stall of reads at one address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadStall {
    Off,
    At { address: u64 },
    Stalling,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let valid = Level1Entry::new().with_valid(true).into_bits();
        let word = |at| match at {
            TABLES..TABLES_END => valid,
            CONFIGURATION.. => 0xa1a1_a1a1_a1a1_a1a1,
            _ => 0,
        };
        Self {
            words: (0..bytes as u64).step_by(8).map(|at| AtomicU64::new(word(at))).collect(),
            accesses: AtomicUsize::new(0),
            stall: Mutex::new(ReadStall::Off),
            changed: Condvar::new(),
        }
    }

    /// Returns the number of reads and writes.
    pub(crate) fn accesses(&self) -> usize {
        self.accesses.load(SeqCst)
    }

    /// Writes an LPI's configuration byte.
    pub(crate) fn configure(&self, lpi: u32, byte: u8) {
        self.write(CONFIGURATION + u64::from(lpi - FIRST), &[byte]).unwrap();
    }

    /// Stalls reads of this LPI's configuration byte until [`open`](Self::open) is called.
    pub(crate) fn close(&self, lpi: u32) {
        *self.stall.lock().unwrap() =
            ReadStall::At { address: CONFIGURATION + u64::from(lpi - FIRST) };
    }

    /// Waits until a read stalls.
    pub(crate) fn wait_for_a_reader(&self) {
        let stall = self.stall.lock().unwrap();
        let waits = |stall: &mut ReadStall| *stall != ReadStall::Stalling;
        let (_stall, timeout) = self.changed.wait_timeout_while(stall, PATIENCE, waits).unwrap();
        assert!(!timeout.timed_out(), "no thread reads the configuration");
    }

    /// Lets the stalled reader continue.
    pub(crate) fn open(&self) {
        *self.stall.lock().unwrap() = ReadStall::Off;
        self.changed.notify_all();
    }

    fn access(&self, address: u64) {
        self.accesses.fetch_add(1, SeqCst);
        let mut stall = self.stall.lock().unwrap();
        if *stall == (ReadStall::At { address }) {
            *stall = ReadStall::Stalling;
            self.changed.notify_all();
            drop(self.changed.wait_while(stall, |stall| *stall == ReadStall::Stalling).unwrap());
        }
    }

    fn word(&self, address: u64) -> Result<&AtomicU64, MemoryFault> {
        let index = usize::try_from(address / 8).ok();
        index.and_then(|index| self.words.get(index)).ok_or(MemoryFault { address })
    }
}

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.access(address);
        for (byte, address) in bytes.iter_mut().zip(address..) {
            *byte = self.word(address)?.load(Relaxed).to_le_bytes()[(address % 8) as usize];
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.access(address);
        for (byte, address) in bytes.iter().zip(address..) {
            let word = self.word(address)?;
            let mut image = word.load(Relaxed).to_le_bytes();
            image[(address % 8) as usize] = *byte;
            word.store(u64::from_le_bytes(image), Relaxed);
        }
        Ok(())
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        self.access(address);
        Ok(self.word(address)?.load(Relaxed))
    }

    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        self.access(address);
        self.word(address)?.store(word, Relaxed);
        Ok(())
    }
}

pub(crate) struct Machine {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) kicks: Arc<Kicks>,
}

/// Returns a machine with one vCPU and an ITS.
pub(crate) fn with_its() -> VgicConfig {
    let its = vec![ItsConfig::new(ITS)];
    VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_its(its).with_message_based_spis(true)
}

/// Returns a machine with one vCPU and direct LPIs.
pub(crate) fn with_direct_lpis() -> VgicConfig {
    VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_direct_lpi(true)
}

/// Returns a machine with 512 vCPUs, each in its own cluster, with 20 INTID bits for LPIs and 32
/// DeviceID bits.
pub(crate) fn largest() -> VgicConfig {
    let its = ItsConfig::new(ITS).with_device_id_bits(32);
    let mut config = VgicConfig::new(u16::try_from(MAX_CPUS).unwrap())
        .with_lpi_id_bits(Some(20))
        .with_its_events(1 << 21)
        .with_its(vec![its]);
    for (number, cpu) in (0u32..).zip(&mut config.cpus) {
        let [low, high, ..] = number.to_le_bytes();
        cpu.affinity = Affinity::new(high * 37, low, 255 - low, low % 16);
    }
    config
}

impl Machine {
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

    /// Creates a machine, sets up all tables, and enables all groups, LPIs and ITSes.
    pub(crate) fn start(config: VgicConfig) -> Self {
        let (memory, kicks) = (Memory::new(RAM_BYTES), Kicks::new(config.cpus.len()));
        let (memory, kicks) = (Arc::new(memory), Arc::new(kicks));
        let (gic, vcpus) = Vgic::new(config, memory.clone(), kicks.clone()).unwrap();
        let mut machine = Self { gic, vcpus, memory, kicks };
        machine.start_distributor();
        for cpu in 0..machine.vcpus.len() {
            machine.start_cpu(cpu);
        }
        if machine.gic.its(0).is_some() {
            machine.start_its();
        }
        machine
    }

    /// Removes and returns the only vCPU.
    pub(crate) fn vcpu(&mut self) -> Vcpu {
        self.vcpus.remove(0)
    }

    fn start_distributor(&self) {
        let spi = IntId::new(SPI);
        self.write_bits(gicd::IGROUPR.locate(spi).unwrap());
        self.write_bits(gicd::ISENABLER.locate(spi).unwrap());
        let edge = gicd::ICFGR.locate(spi).unwrap();
        self.write_gicd(edge.register().offset(), Word, edge.insert(0, 2).into());
        self.write_gicd(gicd::CTLR.offset(), Word, 2);
    }

    fn start_cpu(&mut self, cpu: usize) {
        let id_bits = self.gic.config().lpi_id_bits.unwrap();
        let tables = Propbaser::new().with_id_bits_minus_one(id_bits - 1);
        let tables = tables.with_address(CONFIGURATION).into_bits();
        let pending = Pendbaser::new().with_pending_table_zero(true).into_bits();
        self.write_gicr(cpu, gicr::WAKER.offset(), Word, 0);
        self.write_gicr(cpu, gicr::PROPBASER.offset(), Double, tables);
        self.write_gicr(cpu, gicr::PENDBASER.offset(), Double, pending);
        self.write_gicr(cpu, gicr::CTLR.offset(), Word, 1);
        self.write_gicr(cpu, gicr::IGROUPR.offset(), Word, 0xffff_ffff);
        self.write_gicr(cpu, gicr::ISENABLER.offset(), Word, 0xffff);
        self.vcpus[cpu].write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        self.vcpus[cpu].write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
    }

    /// Sets up the tables, with a two-level device table, and maps collection n to vCPU n.
    fn start_its(&self) {
        let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let table = table.with_address(TABLES);
        let devices = table.with_indirect(true).with_pages_minus_one(63);
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        self.write_its(gits::BASER.get(0).unwrap().offset(), Double, devices.into_bits());
        self.write_its(gits::BASER.get(1).unwrap().offset(), Double, table.into_bits());
        self.write_its(gits::CBASER.offset(), Double, queue.into_bits());
        self.write_its(gits::CTLR.offset(), Word, 1);
        self.run((0..self.vcpus.len()).map(|cpu| {
            let cpu = u16::try_from(cpu).unwrap();
            let target = RdBase::from_processor_number(cpu);
            Command::Mapc { collection: CollectionId::new(cpu), target, action: MapAction::Map }
        }));
    }

    /// Maps a device with the given number of EventID bits, and maps all of its events to
    /// consecutive LPIs starting at `first`.
    pub(crate) fn map(&self, device: u32, bits: u8, first: u32) {
        self.run([mapd(device, bits)]);
        self.run((0..1 << bits).map(|event| mapti(device, event, first + event, 0)));
    }

    /// Executes ITS commands.
    pub(crate) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        let mut end = self.read_its(gits::CWRITER.offset());
        for command in commands {
            for (word, at) in command.encode().into_iter().zip((0..).step_by(8)) {
                self.memory.write_u64(QUEUE + end + at, word).unwrap();
            }
            end = (end + 32) % QUEUE_BYTES;
            if end.is_multiple_of(QUEUE_BYTES / 2) {
                self.ring_queue(end);
            }
        }
        self.ring_queue(end);
        assert_eq!(self.gic.command_faults(0).unwrap().count, 0);
    }

    fn ring_queue(&self, end: u64) {
        let written = Cwriter::at_offset(u32::try_from(end).unwrap()).into_bits();
        self.write_its(gits::CWRITER.offset(), Double, written);
        while self.read_its(gits::CREADR.offset()) != end {}
    }

    /// Sends a device's message to the ITS.
    pub(crate) fn send(&self, device: u32, event: u32) -> Delivery {
        let address = ITS + u64::from(gits::TRANSLATER.offset());
        let its = self.gic.its(0).unwrap();
        its.signal_msi(DeviceId::new(device), MsiMessage { address, data: event })
    }

    /// Acknowledges and ends an interrupt at a vCPU.
    pub(crate) fn handle(&mut self, cpu: usize) -> u64 {
        handle(&mut self.vcpus[cpu])
    }

    /// Writes 1 to the bit of an SPI in a distributor register.
    pub(crate) fn write_bits(&self, bit: IntIdLocation) {
        self.write_gicd(bit.register().offset(), Word, bit.mask().into());
    }

    pub(crate) fn write_gicd(&self, offset: u32, width: AccessWidth, value: u64) {
        self.write(self.gic.config().distributor, offset, width, value);
    }

    pub(crate) fn write_gicr(&self, cpu: usize, offset: u32, width: AccessWidth, value: u64) {
        let region = self.gic.config().redistributors[0];
        self.write(region.base + region.stride * cpu as u64, offset, width, value);
    }

    fn write_its(&self, offset: u32, width: AccessWidth, value: u64) {
        self.write(ITS, offset, width, value);
    }

    fn read_its(&self, offset: u32) -> u64 {
        self.gic.read(ITS + u64::from(offset), Double).unwrap()
    }

    fn write(&self, base: u64, offset: u32, width: AccessWidth, value: u64) {
        self.gic.write_until_done(base + u64::from(offset), width, value).unwrap();
    }
}

fn handle(vcpu: &mut Vcpu) -> u64 {
    let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
    vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
    intid
}

/// Acknowledges and ends every signaled interrupt. Returns their number.
pub(crate) fn handle_all(vcpu: &mut Vcpu) -> usize {
    std::iter::from_fn(|| (handle(vcpu) != SPURIOUS).then_some(())).count()
}

pub(crate) fn mapd(device: u32, bits: u8) -> Command {
    let (device, action) = (DeviceId::new(device), MapAction::Map);
    Command::Mapd { device, itt: 0, event_bits_minus_one: bits - 1, action }
}

pub(crate) fn mapti(device: u32, event: u32, intid: u32, collection: u16) -> Command {
    let (device, event) = (DeviceId::new(device), EventId::new(event));
    Command::Mapti { device, event, intid, collection: CollectionId::new(collection) }
}

pub(crate) fn inv(device: u32, event: u32) -> Command {
    Command::Inv { device: DeviceId::new(device), event: EventId::new(event) }
}
