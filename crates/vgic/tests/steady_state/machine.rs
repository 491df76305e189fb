//! A machine with everything mapped, in memory that counts accesses and can hold one of them up.

use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Kick, MsiMessage};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};

const ITS: u64 = 0x0808_0000;
const QUEUE: u64 = 0;
const DEVICES: u64 = 0x1_0000;
const COLLECTIONS: u64 = 0x2_0000;
const PENDING: u64 = 0x3_0000;
const CONFIGURATION: u64 = 0x4_0000;
const SIZE: usize = 0x5_0000;

/// The first LPI.
pub(crate) const FIRST: u32 = 8192;
/// An edge-triggered SPI.
pub(crate) const SPI: u32 = 40;
const NOTHING: u64 = 1023;
const PATIENCE: Duration = Duration::from_secs(30);

/// Memory from address 0 on.
pub(crate) struct Memory {
    bytes: Mutex<Vec<u8>>,
    accesses: AtomicUsize,
    stall: Mutex<ReadStall>,
    moved: Condvar,
}

/// A read of one address that does not return for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadStall {
    Off,
    At { address: u64 },
    Stalling,
}

impl Memory {
    fn new() -> Self {
        let mut bytes = vec![0; SIZE];
        bytes[usize::try_from(CONFIGURATION).unwrap()..].fill(0xa1);
        Self {
            bytes: Mutex::new(bytes),
            accesses: AtomicUsize::new(0),
            stall: Mutex::new(ReadStall::Off),
            moved: Condvar::new(),
        }
    }

    /// Number of reads and writes.
    pub(crate) fn accesses(&self) -> usize {
        self.accesses.load(SeqCst)
    }

    /// Blocks readers of this LPI's configuration until it is [`open`](Self::open) again.
    pub(crate) fn close(&self, lpi: u32) {
        *self.stall.lock().unwrap() =
            ReadStall::At { address: CONFIGURATION + u64::from(lpi - FIRST) };
    }

    /// Waits until a read stalls.
    pub(crate) fn wait_for_somebody(&self) {
        let stall = self.stall.lock().unwrap();
        let waits = |stall: &mut ReadStall| *stall != ReadStall::Stalling;
        let (_stall, timeout) = self.moved.wait_timeout_while(stall, PATIENCE, waits).unwrap();
        assert!(!timeout.timed_out(), "nobody reads it");
    }

    /// Lets through who waits.
    pub(crate) fn open(&self) {
        *self.stall.lock().unwrap() = ReadStall::Off;
        self.moved.notify_all();
    }

    fn pass(&self, address: u64) {
        self.accesses.fetch_add(1, SeqCst);
        let mut stall = self.stall.lock().unwrap();
        if *stall == (ReadStall::At { address }) {
            *stall = ReadStall::Stalling;
            self.moved.notify_all();
            drop(self.moved.wait_while(stall, |stall| *stall == ReadStall::Stalling).unwrap());
        }
    }

    fn range(address: u64, len: usize) -> Result<std::ops::Range<usize>, MemoryFault> {
        let start = usize::try_from(address).map_err(|_| MemoryFault { address })?;
        let end = start.checked_add(len).filter(|end| *end <= SIZE);
        end.map(|end| start..end).ok_or(MemoryFault { address })
    }
}

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.pass(address);
        bytes.copy_from_slice(&self.bytes.lock().unwrap()[Self::range(address, bytes.len())?]);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.pass(address);
        self.bytes.lock().unwrap()[Self::range(address, bytes.len())?].copy_from_slice(bytes);
        Ok(())
    }
}

/// Counts kicks.
#[derive(Default)]
pub(crate) struct Kicks(AtomicUsize);

impl Kicks {
    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Kick for Kicks {
    fn kick(&self, _: Cpu) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub(crate) struct Machine {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) kicks: Arc<Kicks>,
}

/// A machine of one vCPU with an ITS.
pub(crate) fn with_its() -> VgicConfig {
    let its = vec![ItsConfig::new(ITS)];
    VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_its(its).with_message_based_spis(true)
}

/// A machine of one vCPU with direct LPIs.
pub(crate) fn with_direct_lpis() -> VgicConfig {
    VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_direct_lpi(true)
}

impl Machine {
    /// Everything is enabled.
    pub(crate) fn start(config: VgicConfig) -> (Self, Vcpu) {
        let (memory, kicks) = (Arc::new(Memory::new()), Arc::new(Kicks::default()));
        let (gic, mut vcpus) = Vgic::new(config, memory.clone(), kicks.clone()).unwrap();
        let (machine, mut vcpu) = (Self { gic, memory, kicks }, vcpus.remove(0));
        let distributor = machine.gic.config().distributor;
        machine.write_bits(distributor, gicd::IGROUPR.locate(IntId::new(SPI)).unwrap());
        machine.write_bits(distributor, gicd::ISENABLER.locate(IntId::new(SPI)).unwrap());
        let edge = gicd::ICFGR.locate(IntId::new(SPI)).unwrap();
        machine.write(
            distributor + u64::from(edge.register().offset()),
            Word,
            edge.insert(0, 2).into(),
        );
        machine.write(distributor + u64::from(gicd::CTLR.offset()), Word, 2);
        machine.redistributor(gicr::WAKER.offset(), Word, 0);
        machine.redistributor(gicr::PROPBASER.offset(), Double, CONFIGURATION | 15);
        machine.redistributor(gicr::PENDBASER.offset(), Double, PENDING);
        machine.redistributor(gicr::CTLR.offset(), Word, 1);
        vcpu.write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
        if machine.gic.its(0).is_some() {
            machine.start_its();
        }
        (machine, vcpu)
    }

    fn start_its(&self) {
        let table =
            |at| Baser::new().with_page_size(PageSize::Size64K).with_address(at).with_valid(true);
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        let write = |offset: u32, value| self.write(ITS + u64::from(offset), Double, value);
        write(gits::BASER.get(0).unwrap().offset(), table(DEVICES).into_bits());
        write(gits::BASER.get(1).unwrap().offset(), table(COLLECTIONS).into_bits());
        write(gits::CBASER.offset(), queue.into_bits());
        self.write(ITS + u64::from(gits::CTLR.offset()), Word, 1);
        let (collection, target) = (CollectionId::new(0), RdBase::from_processor_number(0));
        self.run(&[Command::Mapc { collection, target, action: MapAction::Map }]);
    }

    /// Maps a device with this many EventID bits, and all of its events to LPIs from `first` on.
    pub(crate) fn map(&self, device: u32, bits: u8, first: u32) {
        let (device, action) = (DeviceId::new(device), MapAction::Map);
        self.run(&[Command::Mapd { device, itt: 0, event_bits_minus_one: bits - 1, action }]);
        let mapti = |event: u32| Command::Mapti {
            device,
            event: EventId::new(event),
            intid: first + event,
            collection: CollectionId::new(0),
        };
        let events: Vec<_> = (0..1 << bits).map(mapti).collect();
        events.chunks(1024).for_each(|events| self.run(events));
    }

    /// Executes ITS commands.
    pub(crate) fn run(&self, commands: &[Command]) {
        let register = |register: u32| ITS + u64::from(register);
        let mut end = self.gic.read(register(gits::CWRITER.offset()), Double).unwrap();
        for command in commands {
            let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
            self.memory.write(QUEUE + end, &image).unwrap();
            end = (end + 32) % DEVICES;
        }
        let end = Cwriter::at_offset(u32::try_from(end).unwrap()).into_bits();
        self.write(register(gits::CWRITER.offset()), Double, end);
        while self.gic.read(register(gits::CREADR.offset()), Double).unwrap() != end {}
        assert_eq!(self.gic.command_faults(0).unwrap().count, 0);
    }

    /// A device's message to the ITS.
    pub(crate) fn send(&self, device: u32, event: u32) -> Delivery {
        let address = ITS + u64::from(gits::TRANSLATER.offset());
        let its = self.gic.its(0).unwrap();
        its.signal_msi(DeviceId::new(device), MsiMessage { address, data: event })
    }

    fn write_bits(&self, frame: u64, field: gic_arch::IntIdLocation) {
        self.write(frame + u64::from(field.register().offset()), Word, field.mask().into());
    }

    /// Writes a register of the redistributor.
    pub(crate) fn redistributor(&self, offset: u32, width: vgic::AccessWidth, value: u64) {
        self.write(self.gic.config().redistributors[0].base + u64::from(offset), width, value);
    }

    fn write(&self, address: u64, width: vgic::AccessWidth, value: u64) {
        self.gic.write(address, width, value).unwrap();
    }
}

/// Acknowledges and ends whatever is signalled. How many were there?
pub(crate) fn handle_all(vcpu: &mut Vcpu) -> usize {
    let handle = || {
        let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
        vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
        (intid != NOTHING).then_some(())
    };
    std::iter::from_fn(handle).count()
}
