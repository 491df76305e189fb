//! A test machine whose guest memory counts accesses and can stall reads of one address.

use doorbell_test_support::guest::{self, ITS, handle, mapc, mapd, mapti};
use gic_arch::Affinity;
use gic_arch::gicr::{self, Pendbaser};
use gic_arch::gits::{Baser, PageSize};
use gic_arch::its::Level1Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vgic::its::ItsConfig;
use vgic::{GuestMemory, MAX_CPUS, MemoryFault, Vcpu, VgicConfig};

/// A machine whose memory counts accesses.
pub(crate) type Machine = guest::Machine<Memory>;

const QUEUE: u64 = 0x1_0000;
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

/// Creates a machine, sets up all tables, and enables all groups, LPIs and ITSes. The device table
/// has two levels. Collection n is mapped to vCPU n.
pub(crate) fn start(config: VgicConfig) -> Machine {
    let mut machine = guest::Machine::over(config, Arc::new(Memory::new(RAM_BYTES)));
    machine.queue = QUEUE;
    machine.start();
    machine.enable_spi(SPI);
    machine.make_edge(SPI);
    let id_bits = machine.gic.config().lpi_id_bits.unwrap();
    for cpu in 0..machine.vcpus.len() {
        machine.provide_lpi_tables(cpu, id_bits, CONFIGURATION, 0);
        machine.write_gicr(cpu, gicr::PENDBASER, Pendbaser::new().with_pending_table_zero(true));
        machine.set_enable_lpis(cpu, true);
        machine.write_gicr(cpu, gicr::ISENABLER.registers().get(0).unwrap(), 0xffff);
    }
    if machine.gic.its(0).is_some() {
        let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let table = table.with_address(TABLES);
        machine.start_its_with(table.with_indirect(true).with_pages_minus_one(63), table);
        let cpus = u16::try_from(machine.vcpus.len()).unwrap();
        machine.run((0..cpus).map(|cpu| mapc(cpu, cpu)));
    }
    machine
}

/// Maps a device with the given number of EventID bits, and maps all of its events to
/// consecutive LPIs starting at `first`.
pub(crate) fn map(machine: &Machine, device: u32, bits: u8, first: u32) {
    machine.run([mapd(device, bits, 0)]);
    machine.run((0..1 << bits).map(|event| mapti(device, event, first + event, 0)));
}

/// Acknowledges and ends every signaled interrupt. Returns their number.
pub(crate) fn handle_all(vcpu: &mut Vcpu) -> usize {
    std::iter::from_fn(|| (handle(vcpu) != SPURIOUS).then_some(())).count()
}
