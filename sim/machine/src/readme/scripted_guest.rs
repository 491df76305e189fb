//! A guest that performs the register writes of a script, and takes its interrupts. It runs on the
//! monitor of the guide.

use super::vmm::{
    Exit, GuestCpu, KickFlag, Levels, MESSAGE_CONTROL, Machine, PENDING_BITS, Snapshot, TABLE,
    restore, run, save,
};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::its::{COMMAND_BYTES, CollectionId, Command, MapAction, RdBase};
use gic_arch::{IntId, gicd, gicr, gits, icc};
use gic_firmware::Region;
use irq_routing::msix::Signalled;
use msi_types::pci::msix;
use msi_types::{Delivery, DeviceId, EventId};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::mem;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vgic::{AccessWidth, GuestMemory, Inputs};

const RAM: u64 = 0x4000_0000;
const PENDING_TABLES: u64 = RAM + 0x10_0000;
const DEVICE_TABLE: u64 = RAM + 0x20_0000;
const COLLECTION_TABLE: u64 = RAM + 0x21_0000;
const QUEUE: u64 = RAM + 0x22_0000;
const ITT: u64 = RAM + 0x23_0000;
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;
const ITS: u64 = 0x0808_0000;
const FIRST_LPI: u32 = 8192;
const VECTORS: u16 = 32;
const UART: u32 = 33;
const DEVICE: DeviceId = DeviceId::new(8);
/// Commands in the queue's 64 KiB.
const QUEUE_COMMANDS: u32 = 2048;

/// Number of times that the guest has taken each LPI, and the UART's SPI.
#[derive(Default)]
struct Taken {
    lpis: [AtomicU32; VECTORS as usize],
    uart: AtomicU32,
    spurious: AtomicU32,
    gave_up: AtomicBool,
}

impl Taken {
    fn count(&self, intid: u64) {
        match u32::try_from(intid).unwrap() {
            UART => &self.uart,
            1020..1024 => &self.spurious,
            lpi => &self.lpis[(lpi - FIRST_LPI) as usize],
        }
        .fetch_add(1, Ordering::SeqCst);
    }

    fn lpis(&self) -> Vec<u32> {
        self.lpis.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// Waits until `condition` holds, or for so long that the test fails. Later waits then end
    /// immediately.
    fn wait(&self, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.gave_up.load(Ordering::SeqCst) && !condition(self) {
            self.gave_up.store(Instant::now() >= deadline, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }
}

struct ScriptedCpu {
    script: VecDeque<Exit>,
    acknowledging: bool,
    ending: Option<u64>,
    values_read: Vec<u64>,
    taken: Arc<Taken>,
}

impl GuestCpu for ScriptedCpu {
    fn run(&mut self, inputs: Inputs, kick: &KickFlag) -> Exit {
        if kick.take() {
            Exit::Kicked
        } else if let Some(intid) = self.ending.take() {
            Exit::Msr(icc::EOIR1.encoding(), intid)
        } else if inputs.irq {
            self.acknowledging = true;
            Exit::Mrs(icc::IAR1.encoding())
        } else {
            self.script.pop_front().unwrap_or(Exit::Wfi)
        }
    }

    fn complete(&mut self, value: u64) {
        if mem::take(&mut self.acknowledging) {
            self.taken.count(value);
            self.ending = Some(value);
        } else {
            self.values_read.push(value);
        }
    }

    fn inject_undefined(&mut self) {
        panic!("the script accesses registers that exist");
    }
}

/// Writes scripts.
struct Writer<'a> {
    ram: &'a Ram,
    script: VecDeque<Exit>,
    commands: u32,
}

impl Writer<'_> {
    fn word(&mut self, address: u64, value: u32) {
        self.script.push_back(Exit::Write(address, AccessWidth::Word, value.into()));
    }

    fn double(&mut self, address: u64, value: impl Into<u64>) {
        self.script.push_back(Exit::Write(address, AccessWidth::Double, value.into()));
    }

    fn command(&mut self, command: Command) {
        let place = QUEUE + u64::from(self.commands * COMMAND_BYTES);
        for (address, word) in (place..).step_by(8).zip(command.encode()) {
            self.ram.write(address, &word.to_le_bytes()).unwrap();
        }
        self.commands += 1;
        assert!(self.commands < QUEUE_COMMANDS, "the scripts do not wrap the queue");
        let end = gits::Cwriter::at_offset(self.commands * COMMAND_BYTES);
        self.double(ITS + u64::from(gits::CWRITER.offset()), end);
    }

    fn boot_redistributor(&mut self, cpu: u64) {
        let frame = |offset: u32| REDISTRIBUTORS + cpu * gicr::STRIDE_V3 + u64::from(offset);
        self.word(frame(gicr::WAKER.offset()), 0);
        self.double(frame(gicr::PROPBASER.offset()), RAM | 15);
        self.double(frame(gicr::PENDBASER.offset()), PENDING_TABLES + cpu * 0x1_0000);
        self.word(frame(gicr::CTLR.offset()), 1);
    }

    fn boot_machine(&mut self) {
        self.word(DISTRIBUTOR + u64::from(gicd::CTLR.offset()), 2);
        for field in [gicd::IGROUPR, gicd::ISENABLER] {
            let bit = field.locate(IntId::new(UART)).unwrap();
            self.word(DISTRIBUTOR + u64::from(bit.register().offset()), bit.mask());
        }
        for (baser, table) in gits::BASER.iter().zip([DEVICE_TABLE, COLLECTION_TABLE]) {
            let value = gits::Baser::new().with_address(table).with_valid(true);
            let value = value.with_page_size(gits::PageSize::Size64K);
            self.double(ITS + u64::from(baser.offset()), value);
        }
        let queue = gits::Cbaser::new().with_address(QUEUE).with_pages_minus_one(15);
        self.double(ITS + u64::from(gits::CBASER.offset()), queue.with_valid(true));
        self.word(ITS + u64::from(gits::CTLR.offset()), 1);
        for cpu in 0..4 {
            let (collection, target) = (CollectionId::new(cpu), RdBase::from_processor_number(cpu));
            self.command(Command::Mapc { collection, target, action: MapAction::Map });
        }
        let action = MapAction::Map;
        self.command(Command::Mapd { device: DEVICE, event_bits_minus_one: 4, itt: ITT, action });
        for vector in 0..VECTORS {
            let (event, collection) = (EventId::new(vector.into()), CollectionId::new(vector % 4));
            let intid = FIRST_LPI + u32::from(vector);
            self.command(Command::Mapti { device: DEVICE, event, intid, collection });
        }
    }

    fn entry(&mut self, vector: u16, offset: u64, value: u32) {
        self.word(TABLE + u64::from(vector) * msix::ENTRY_SIZE + offset, value);
    }

    fn enable_function(&mut self) {
        for vector in 0..VECTORS {
            self.entry(vector, msix::ENTRY_ADDRESS_LOW, 0x0809_0040);
            self.entry(vector, msix::ENTRY_DATA, vector.into());
            self.entry(vector, msix::ENTRY_CONTROL, 0);
        }
        let control = msix::Control::new().with_enable(true).into_bits();
        self.script.push_back(Exit::Write(MESSAGE_CONTROL, AccessWidth::Half, control.into()));
    }

    fn boot(&mut self) -> VecDeque<Exit> {
        (0..4).for_each(|cpu| self.boot_redistributor(cpu));
        self.boot_machine();
        self.enable_function();
        let data = TABLE + 31 * msix::ENTRY_SIZE + msix::ENTRY_DATA;
        self.script.push_back(Exit::Read(MESSAGE_CONTROL, AccessWidth::Half));
        self.script.push_back(Exit::Read(data, AccessWidth::Word));
        self.script.push_back(Exit::Read(PENDING_BITS, AccessWidth::Double));
        mem::take(&mut self.script)
    }

    /// Masks, moves and unmasks each vector, `rounds` times.
    fn move_vectors(&mut self, rounds: u16) -> VecDeque<Exit> {
        for (round, vector) in (0..rounds).flat_map(|round| (0..VECTORS).map(move |v| (round, v))) {
            self.entry(vector, msix::ENTRY_CONTROL, 1);
            let event = EventId::new(vector.into());
            let collection = CollectionId::new((vector + round) % 4);
            self.command(Command::Movi { device: DEVICE, event, collection });
            self.entry(vector, msix::ENTRY_CONTROL, 0);
        }
        mem::take(&mut self.script)
    }
}

/// Signals each vector once per round. The guest takes all of them before the next round, so no
/// two messages merge.
fn send(machine: &Machine, taken: &Taken, rounds: RangeInclusive<u32>) {
    for round in rounds {
        signal_all(machine);
        taken.wait(|taken| taken.lpis().iter().all(|&count| count >= round));
    }
}

fn signal_all(machine: &Machine) {
    for vector in 0..VECTORS {
        let signalled = machine.function.signal(vector);
        assert!(
            matches!(signalled, Signalled::Sent(Delivery::Pending) | Signalled::Held),
            "{signalled:?}"
        );
    }
}

fn ram() -> Arc<Ram> {
    let ram = Ram::new(&[Region::new(RAM, 0x100_0000).unwrap()], Caches::Snooped);
    ram.write(RAM, &[0xa1; VECTORS as usize]).unwrap(); // LPIs: enabled, priority 0xa0
    Arc::new(ram)
}

/// Returns the four vCPUs of a guest. The last one boots the machine.
fn guest(boot: VecDeque<Exit>, taken: &Arc<Taken>) -> [ScriptedCpu; 4] {
    let mut cpus = [(); 4].map(|()| {
        let script = VecDeque::from(
            [(icc::PMR.encoding(), 0xff), (icc::IGRPEN1.encoding(), 1)]
                .map(|(register, value)| Exit::Msr(register, value)),
        );
        let taken = taken.clone();
        ScriptedCpu { script, acknowledging: false, ending: None, values_read: Vec::new(), taken }
    });
    cpus[3].script.extend(boot);
    cpus
}

/// A level-triggered device: signals `trigger`, and reads `resample`.
struct Uart {
    trigger: OwnedFd,
    resample: OwnedFd,
    ended: AtomicU64,
}

impl Uart {
    fn new() -> Self {
        let new = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        Self { trigger: new(), resample: new(), ended: AtomicU64::new(0) }
    }

    fn fds(&self) -> [OwnedFd; 2] {
        [&self.trigger, &self.resample].map(|fd| fd.try_clone().unwrap())
    }

    fn raise(&self) {
        rustix::io::write(&self.trigger, &1u64.to_ne_bytes()).unwrap();
    }

    /// Returns the number of times that the interrupt has ended.
    fn ended(&self) -> u64 {
        let mut count = [0; 8];
        if rustix::io::read(&self.resample, &mut count).is_ok() {
            self.ended.fetch_add(u64::from_ne_bytes(count), Ordering::SeqCst);
        }
        self.ended.load(Ordering::SeqCst)
    }
}

fn uart_line(snapshot: &Snapshot) -> bool {
    let interrupts = &snapshot.gic.distributor.interrupts;
    interrupts.iter().any(|interrupt| interrupt.intid.get() == UART && interrupt.line)
}

#[test]
fn machine_of_the_guide_loses_nothing_across_a_restore() {
    let (ram, taken, device) = (ram(), Arc::<Taken>::default(), Uart::new());
    let mut writer = Writer { ram: &ram, script: VecDeque::new(), commands: 0 };
    let mut cpus = guest(writer.boot(), &taken);
    cpus[3].script.extend(writer.move_vectors(25));

    let (machine, mut vcpus) = Machine::new(ram.clone()).unwrap();
    let levels = Levels::new(&machine).unwrap();
    let wire = levels.connect(&machine.router, UART, device.fds()).unwrap();
    run(&machine, &mut vcpus, &mut cpus, || {
        send(&machine, &taken, 1..=50);
        device.raise();
        taken.wait(|taken| taken.uart.load(Ordering::SeqCst) == 1);
        taken.wait(|_| device.ended() == 1);
        signal_all(&machine);
    });
    device.raise();
    taken.wait(|_| uart_line(&save(&machine, &mut vcpus).unwrap()));
    let snapshot = save(&machine, &mut vcpus).unwrap();
    assert!(uart_line(&snapshot));
    let json = serde_json::to_string(&snapshot).unwrap();
    drop((wire, levels, machine, vcpus));

    let (machine, mut vcpus) = Machine::new(ram.clone()).unwrap();
    let levels = Levels::new(&machine).unwrap();
    restore(&machine, &mut vcpus, &serde_json::from_str(&json).unwrap()).unwrap();
    let _wire = levels.connect(&machine.router, UART, device.fds()).unwrap();
    rustix::io::write(&device.resample, &1u64.to_ne_bytes()).unwrap();
    assert_eq!(device.ended(), 2);
    device.raise();
    cpus[3].script.extend(writer.move_vectors(25));
    run(&machine, &mut vcpus, &mut cpus, || {
        taken.wait(|taken| taken.lpis().iter().all(|&count| count >= 51));
        send(&machine, &taken, 52..=100);
        taken.wait(|taken| taken.uart.load(Ordering::SeqCst) == 2);
        taken.wait(|_| device.ended() == 3);
    });
    assert_eq!(cpus[3].values_read, [0x801f, 31, 0]);
    assert_eq!(device.ended(), 3);
    assert_eq!(taken.lpis(), [100; VECTORS as usize]);
    assert_eq!(taken.uart.load(Ordering::SeqCst), 2);
    assert!(!uart_line(&save(&machine, &mut vcpus).unwrap()));
    assert_eq!(machine.gic.events().total(), 0);
}
