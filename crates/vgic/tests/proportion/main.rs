//! The largest machines, and what they cost: memory in proportion to what is used.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::icc::{self, Sgi};
use gic_arch::its::{CollectionId, Command, Level1Entry, MapAction, RdBase};
use gic_arch::{Affinity, IntId, gicd, gicr};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Kick, MsiMessage};
use peak_alloc::PeakAlloc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{FaultReason, GuestMemory, MAX_CPUS, MemoryFault, Vcpu, Vgic, VgicConfig};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One test at a time counts.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes that `act` leaves in use.
fn bytes_of<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    let made = act();
    (made, ALLOCATOR.current_usage().saturating_sub(before))
}

/// Bytes that `act` usually leaves in use. The harness, which shares the allocator, takes or gives
/// back some hundred bytes now and then, in the middle of a measurement too.
fn usual_bytes_of<T>(act: impl Fn() -> T) -> usize {
    let mut samples: Vec<_> = (0..15).map(|_| bytes_of(&act).1).collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

const ITS: u64 = 0x0808_0000;
const QUEUE: u64 = 0x1_0000;
const LEVEL1: u64 = 0x10_0000;
const CONFIGURATION: u64 = 0x200_0000;
const RAM: usize = 64 << 20;
const MIB: usize = 1 << 20;

/// Memory in words, from address 0 on.
struct Ram(Box<[AtomicU64]>);

impl Ram {
    fn word(&self, address: u64) -> Result<&AtomicU64, MemoryFault> {
        let index = usize::try_from(address / 8).ok();
        index.and_then(|index| self.0.get(index)).ok_or(MemoryFault { address })
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        for (byte, address) in bytes.iter_mut().zip(address..) {
            *byte = self.word(address)?.load(Relaxed).to_le_bytes()[(address % 8) as usize];
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        for (byte, address) in bytes.iter().zip(address..) {
            let word = self.word(address)?;
            let mut image = word.load(Relaxed).to_le_bytes();
            image[(address % 8) as usize] = *byte;
            word.store(u64::from_le_bytes(image), Relaxed);
        }
        Ok(())
    }
}

struct Nobody;

impl Kick for Nobody {
    fn kick(&self, _: Cpu) {}
}

/// 512 vCPUs, each in a cluster of its own; LPIs of 20 INTID bits, DeviceIDs of 32.
fn largest() -> VgicConfig {
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

struct Machine {
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    ram: Arc<Ram>,
    written: u32,
}

impl Machine {
    /// Every LPI is configured as enabled; tables are in place.
    fn start() -> (Self, usize) {
        let ram = Arc::new(Ram((0..RAM / 8).map(|_| AtomicU64::new(0)).collect()));
        (0..1u64 << 20).for_each(|lpi| ram.write(CONFIGURATION + lpi, &[0xa1]).unwrap());
        let ((gic, vcpus), bytes) =
            bytes_of(|| Vgic::new(largest(), ram.clone(), Arc::new(Nobody)).unwrap());
        let mut machine = Self { gic, vcpus, ram, written: 0 };
        machine.gic.write(machine.gic.config().distributor, Word, 2).unwrap();
        for cpu in 0..machine.vcpus.len() {
            machine.start_cpu(cpu);
        }
        machine.start_its();
        (machine, bytes)
    }

    fn start_cpu(&mut self, cpu: usize) {
        let frame = self.gic.config().redistributors[0].base + gicr::STRIDE_V3 * cpu as u64;
        let write = |offset: u32, width, value| {
            self.gic.write(frame + u64::from(offset), width, value).unwrap();
        };
        write(gicr::WAKER.offset(), Word, 0);
        let tables = Propbaser::new().with_id_bits_minus_one(19).with_address(CONFIGURATION);
        write(gicr::PROPBASER.offset(), Double, tables.into_bits());
        write(
            gicr::PENDBASER.offset(),
            Double,
            Pendbaser::new().with_pending_table_zero(true).into_bits(),
        );
        write(gicr::CTLR.offset(), Word, Ctlr::new().with_enable_lpis(true).into_bits().into());
        write(gicr::IGROUPR.offset(), Word, 0xffff_ffff);
        write(gicr::ISENABLER.offset(), Word, 0xffff);
        self.vcpus[cpu].write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        self.vcpus[cpu].write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
    }

    /// A two-level device table whose second levels are all "there": 2^19 of them would be 64 KiB
    /// each.
    fn start_its(&mut self) {
        let valid = Level1Entry::new().with_valid(true).into_bits();
        (0..1u64 << 19).for_each(|index| self.ram.write_u64(LEVEL1 + 8 * index, valid).unwrap());
        let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let devices = table.with_address(LEVEL1).with_indirect(true).with_pages_minus_one(63);
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        let write =
            |offset: u32, value| self.gic.write(ITS + u64::from(offset), Double, value).unwrap();
        write(gits::BASER.get(0).unwrap().offset(), devices.into_bits());
        write(gits::BASER.get(1).unwrap().offset(), table.into_bits());
        write(gits::CBASER.offset(), queue.into_bits());
        self.gic.write(ITS + u64::from(gits::CTLR.offset()), Word, 1).unwrap();
        self.run((0..512).map(|cpu| Command::Mapc {
            collection: CollectionId::new(cpu),
            target: RdBase::from_processor_number(cpu),
            action: MapAction::Map,
        }));
    }

    fn run(&mut self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            for (word, at) in command.encode().into_iter().zip((0..).step_by(8)) {
                self.ram.write_u64(QUEUE + u64::from(self.written) + at, word).unwrap();
            }
            self.written = (self.written + 32) % 0x1_0000;
            if self.written.is_multiple_of(0x8000) {
                self.ring();
            }
        }
        self.ring();
    }

    fn ring(&self) {
        let written = Cwriter::at_offset(self.written).into_bits();
        self.gic.write(ITS + u64::from(gits::CWRITER.offset()), Double, written).unwrap();
        while self.gic.read(ITS + u64::from(gits::CREADR.offset()), Double).unwrap()
            != u64::from(self.written)
        {}
    }

    fn send(&self, device: u32, event: u32) -> Delivery {
        let address = ITS + u64::from(gits::TRANSLATER.offset());
        self.gic
            .its(0)
            .unwrap()
            .signal_msi(DeviceId::new(device), MsiMessage { address, data: event })
    }

    fn handle(&mut self, cpu: usize) -> u64 {
        let vcpu = &mut self.vcpus[cpu];
        let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
        vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
        intid
    }
}

/// LPIs go around all vCPUs.
fn cpu_of(number: u32) -> u16 {
    u16::try_from(number % 512).unwrap()
}

fn mapd(device: u32, bits: u8) -> Command {
    let (device, action) = (DeviceId::new(device), MapAction::Map);
    Command::Mapd { device, itt: 0, event_bits_minus_one: bits - 1, action }
}

fn unmapd(device: u32) -> Command {
    let (device, action) = (DeviceId::new(device), MapAction::Unmap);
    Command::Mapd { device, itt: 0, event_bits_minus_one: 0, action }
}

fn mapti(device: u32, event: u32, lpi: u32, collection: u16) -> Command {
    let collection = CollectionId::new(collection);
    Command::Mapti {
        device: DeviceId::new(device),
        event: EventId::new(event),
        intid: lpi,
        collection,
    }
}

#[test]
fn sparse_vcpus_are_small_until_used() {
    let _turn = turn();
    let (machine, bytes) = Machine::start();
    assert!(bytes < 8 * MIB, "{bytes} bytes");
    assert_eq!(machine.gic.command_faults(0).unwrap().count, 0);
}

#[test]
fn one_vcpu_without_lpis_takes_at_most_8_kib() {
    let _turn = turn();
    let ram = Arc::new(Ram(Box::default()));
    let kicks = Arc::new(Nobody);
    let bytes =
        usual_bytes_of(|| Vgic::new(VgicConfig::new(1), ram.clone(), kicks.clone()).unwrap());
    assert!(bytes <= 8 << 10, "{bytes} bytes");
}

#[test]
fn wired_interrupts_cost_what_is_configured() {
    let _turn = turn();
    let bytes = |spis, extended| {
        let config = VgicConfig::new(1).with_spis(spis).with_extended_spis(extended);
        let ram = Arc::new(Ram(Box::default()));
        let kicks = Arc::new(Nobody);
        usual_bytes_of(|| Vgic::new(config.clone(), ram.clone(), kicks.clone()).unwrap())
    };
    // A word and a route's affinity each, and bit maps.
    let costs = |bytes: usize, interrupts: usize| bytes.abs_diff(interrupts * 12) < 200;
    let further = bytes(256, 0) - bytes(32, 0);
    assert!(costs(further, 256 - 32), "{further} bytes");
    let further = bytes(32, 64) - bytes(32, 32);
    assert!(costs(further, 32), "{further} bytes");
}

#[test]
fn sgis_and_spis_reach_vcpus_by_affinity() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();
    let bit = gicd::ISENABLER.locate(IntId::new(40)).unwrap();
    let distributor = machine.gic.config().distributor;
    let write = |gic: &Vgic, offset: u32, width, value| {
        gic.write(distributor + u64::from(offset), width, value).unwrap();
    };
    write(&machine.gic, bit.register().offset(), Word, bit.mask().into());
    let group = gicd::IGROUPR.locate(IntId::new(40)).unwrap();
    write(&machine.gic, group.register().offset(), Word, group.mask().into());
    for cpu in 0..MAX_CPUS {
        let affinity = machine.gic.config().cpus[cpu].affinity;
        let other = (cpu + 100) % MAX_CPUS;
        machine.vcpus[other]
            .write_sysreg(icc::SGI1R.encoding(), Sgi::to(7, affinity).into_bits())
            .unwrap();
        assert_eq!(machine.handle(cpu), 7);

        let route = gicd::irouter(IntId::new(40)).unwrap();
        write(&machine.gic, route.offset(), Double, gicd::Irouter::to(affinity).into_bits());
        let set = gicd::ISPENDR.locate(IntId::new(40)).unwrap();
        write(&machine.gic, set.register().offset(), Word, set.mask().into());
        assert_eq!(machine.handle(cpu), 40);
    }
}

#[test]
fn device_ids_of_32_bits_cost_what_is_mapped() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();
    let devices: Vec<u32> = (0..1024u32).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();

    let ((), bytes) = bytes_of(|| {
        for (device, lpi) in devices.iter().zip(8192..) {
            machine.run([mapd(*device, 1), mapti(*device, 0, lpi, 3)]);
        }
    });

    // A path of the tree per device, of three nodes of 256 entries.
    assert!(bytes < 1024 * 3 * 16 * 256, "{bytes} bytes");
    for (device, lpi) in devices.iter().zip(8192..) {
        assert_eq!(machine.send(*device, 0), Delivery::Pending);
        assert_eq!(machine.handle(3), lpi);
        assert_eq!(machine.send(device ^ 1, 0), Delivery::Blocked);
    }
    assert_eq!(machine.gic.events().count(FaultReason::ItsCommand), 0);
}

#[test]
fn a_saved_state_is_in_proportion_to_mappings() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();
    let save =
        |machine: &mut Machine| machine.gic.freeze(&mut machine.vcpus).unwrap().save().unwrap();
    let (idle, idle_bytes) = bytes_of(|| save(&mut machine));
    drop(idle);
    let devices: Vec<u32> = (0..1024u32).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
    for (device, lpi) in devices.iter().zip(8192..) {
        machine.run([mapd(*device, 16), mapti(*device, 0xffff, lpi, 3)]);
    }

    let (saved, bytes) = bytes_of(|| save(&mut machine));

    // Each vCPU has 32 private interrupts that are not as after reset; each device has an event.
    assert!(idle_bytes < 512 * 4096, "{idle_bytes} bytes");
    assert!(bytes - idle_bytes < 1024 * 256, "{} bytes more", bytes - idle_bytes);
    machine.gic.freeze(&mut machine.vcpus).unwrap().restore(&saved).unwrap();
    assert!(save(&mut machine) == saved);
    for (device, lpi) in devices.iter().zip(8192..).step_by(37) {
        assert_eq!(machine.send(*device, 0xffff), Delivery::Pending);
        assert_eq!(machine.handle(3), lpi);
    }
}

#[test]
fn an_lpi_at_each_of_512_vcpus_costs_little() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();

    let ((), bytes) = bytes_of(|| {
        machine.run([mapd(5, 9)]);
        machine.run((0..512u16).map(|cpu| mapti(5, cpu.into(), 8192 + u32::from(cpu), cpu)));
    });

    assert!(bytes < 4 * MIB, "{bytes} bytes");
    for (cpu, event) in (0..512).zip(0u32..) {
        assert_eq!(machine.send(5, event), Delivery::Pending);
        assert_eq!(machine.handle(cpu), u64::from(8192 + event));
    }
}

#[test]
fn ready_bitmaps_stay_within_their_budget() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();
    machine.run([mapd(0, 1), mapti(0, 0, 8192, 0)]);
    let inv = Command::Inv { device: DeviceId::new(0), event: EventId::new(0) };

    let ((), bytes) = bytes_of(|| {
        for priority in (0..=u8::MAX).step_by(4) {
            machine.ram.write(CONFIGURATION, &[priority | 1]).unwrap();
            machine.run([inv]);
        }
    });

    // One part of 4096 is used of the budget's 2^21 and of the redistributor's own LPIs. Of the
    // others there is the place for a pointer.
    let part = 17 << 10;
    let pointers = 32 * 8 * ((1 << 21) + (1 << 20)) / 4096;
    assert!((part / 2..part + pointers).contains(&bytes), "{bytes} bytes");
}

#[test]
fn all_20_bit_lpis_take_100_bytes_each() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();
    let count = (1u32 << 20) - 8192;

    let ((), bytes) = bytes_of(|| {
        for device in 0..count.div_ceil(1 << 16) {
            machine.run([mapd(device, 16)]);
        }
        machine.run((0..count).map(|n| mapti(n >> 16, n & 0xffff, 8192 + n, cpu_of(n))));
    });

    assert_eq!(machine.gic.command_faults(0).unwrap().count, 0);
    let each = bytes / count as usize;
    // A word and its owner; and, spread over all vCPUs as here, hints at each of them.
    assert!(each < 96, "{each} bytes for each of {count} LPIs");
    for n in (0..count).step_by(997).chain([count - 1]) {
        assert_eq!(machine.send(n >> 16, n & 0xffff), Delivery::Pending);
        assert_eq!(machine.handle(cpu_of(n).into()), u64::from(8192 + n));
    }
}

/// Time that the machine stands still to be saved, and times to restore it and a fresh one: the
/// least of some rounds.
fn pause(machine: &mut Machine) -> [Duration; 3] {
    fn time<T>(act: impl FnOnce() -> T) -> (T, Duration) {
        let start = Instant::now();
        (act(), start.elapsed())
    }
    let round = || {
        let (gic, mut vcpus) = Vgic::new(largest(), machine.ram.clone(), Arc::new(Nobody)).unwrap();
        let (saved, saving) =
            time(|| machine.gic.freeze(&mut machine.vcpus).unwrap().save().unwrap());
        let restore =
            |gic: &Vgic, vcpus: &mut [Vcpu]| gic.freeze(vcpus).unwrap().restore(&saved).unwrap();
        let ((), there) = time(|| restore(&gic, &mut vcpus));
        let ((), here) = time(|| restore(&machine.gic, &mut machine.vcpus));
        [saving, there, here]
    };
    let rounds: Vec<_> = std::iter::repeat_with(round).take(3).collect();
    [0, 1, 2].map(|part| rounds.iter().map(|round| round[part]).min().unwrap())
}

#[test]
fn a_pause_is_in_proportion_to_mappings() {
    let _turn = turn();
    let (mut machine, _) = Machine::start();
    let (few, many) = (64, 1 << 18);
    for device in 0..4 {
        machine.run([mapd(device, 16)]);
    }
    machine.run((0..many).map(|n| mapti(n >> 16, n & 0xffff, 8192 + n, cpu_of(n))));
    let all = pause(&mut machine);
    machine.run((0..4).map(unmapd));
    machine.run([mapd(0, 16)]);
    machine.run((0..few).map(|n| mapti(0, n << 10, 8192 + n, cpu_of(n))));

    let part = pause(&mut machine);

    // Most of it then is not mappings but 512 vCPUs with their wired interrupts.
    assert!(part.iter().zip(&all).all(|(part, all)| *part * 4 < *all), "{part:?} of {all:?}");
}
