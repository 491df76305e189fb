//! A guest that uses a PCI device, QEMU's `edu`, and attacks on the devices of other guests and by
//! INTx. All access configuration space at `virt`'s address.

use crate::exceptions;
use crate::machine::{self, GICD, Layout};
use crate::random::Random;
use crate::turns::Turns;
use doorbell_facts::{Fact, HostileFact, StrayDmaFact};
use image_rt::nvme::Nvme;
use image_rt::{cpu, pci, power, println};
use msi_types::Region;

pub(crate) const ECAM: u64 = 0x40_1000_0000;
/// Number of functions that fit on the first four buses.
pub(crate) const FUNCTIONS: u64 = 1024;
/// The window for 32-bit addresses.
const WINDOW: u64 = 0x1000_0000;
const WINDOW_BYTES: u64 = 0x2eff_0000;
/// Vendor and device ID, length of the device's memory, and its first register
/// (docs/specs/edu.rst).
const EDU: u32 = 0x11e8_1234;
const LENGTH: u64 = 1 << 20;
const IDENTIFICATION: u32 = 0x0100_00ed;
pub(crate) const COMMAND: u64 = 0x04;
pub(crate) const MEMORY_AND_MASTER: u64 = 6;
const BAR: u64 = 0x10;
/// The device's register that asserts its interrupt.
const RAISE: u64 = 0x60;

pub(crate) fn read(address: u64) -> u32 {
    machine::read(address, 4) as u32
}

/// Writes 32 bits by accesses of this many bytes.
fn write(address: u64, bytes: u8, value: u64) {
    for at in (0..4).step_by(bytes.into()) {
        machine::write(address + at, bytes, value >> (8 * at));
    }
}

/// Returns the configuration space of the guest's device with these IDs.
pub(crate) fn find(ids: u32) -> u64 {
    let mut functions = (0..FUNCTIONS).map(|function| ECAM + (function << 12));
    let found = functions.find(|function| read(*function) == ids);
    found.unwrap_or_else(|| panic!("the guest has no device {ids:08x}"))
}

/// Places the first region of a function with 64-bit regions, and enables the function. Returns the
/// region's address.
pub(crate) fn enable(configuration: u64) -> u64 {
    const PLACE: u64 = WINDOW + (2 << 20);
    for (bar, value) in [(BAR, PLACE), (BAR + 4, 0)] {
        machine::write(configuration + bar, 4, value);
    }
    machine::write(configuration + COMMAND, 2, MEMORY_AND_MASTER);
    PLACE
}

/// Keeps moving the device's memory for this many milliseconds. The device must answer at each
/// place, and only there. Prints how often it did not.
pub(crate) fn keep_using(milliseconds: u64) -> ! {
    exceptions::install();
    let edu = find(EDU);
    let (mut turns, mut wrong) = (Turns::until(milliseconds), 0);
    let mut old = u64::from(read(edu + BAR));
    while turns.next() {
        let turn = turns.count();
        let place = WINDOW + (1 + turn % 700) * LENGTH;
        let bytes = [1, 2, 4][turn as usize % 3];
        write(edu + BAR, bytes, u64::MAX);
        let size = read(edu + BAR);
        write(edu + BAR, bytes, place);
        machine::write(edu + COMMAND, bytes, 0);
        let hidden = read(place);
        machine::write(edu + COMMAND, bytes, MEMORY_AND_MASTER);
        let found = [size, read(edu + BAR), hidden, read(place), read(old)];
        let expected = [!(LENGTH as u32 - 1), place as u32, u32::MAX, IDENTIFICATION, u32::MAX];
        wrong += u64::from(found != expected);
        old = place;
    }
    let (turns, exceptions) = (turns.count(), exceptions::taken());
    println!("{}", Fact::from(HostileFact::Used { turns, wrong, exceptions }));
    power::system_off()
}

/// Disables every function on the first four buses, and writes to random registers of functions and
/// to random addresses of the window.
pub(crate) fn attack(turns: &mut Turns) {
    let mut random = Random::here();
    while turns.next() {
        let function = ECAM + ((turns.count() % FUNCTIONS) << 12);
        for bytes in [1, 2, 4] {
            machine::write(function + COMMAND, bytes, 0);
            let register = random.below(0x100) & !(u64::from(bytes) - 1);
            machine::write(function + register, bytes, random.value());
            let address = WINDOW + (random.below(WINDOW_BYTES) & !7);
            machine::write(address, bytes, random.value());
        }
    }
}

/// Keeps the device's INTx asserted, and ends its interrupt again and again.
pub(crate) fn line(turns: &mut Turns) {
    machine::enable_interrupts();
    // Group 1, and enabled (IHI 0069, GICD_IGROUPR<1> and GICD_ISENABLER<1>).
    for first_spis in [0x84, 0x104] {
        machine::write(GICD + first_spis, 4, u64::MAX);
    }
    write(u64::from(read(find(EDU) + BAR)) + RAISE, 4, 1);
    while turns.next() {
        let intid = loop {
            let intid = machine::acknowledge();
            if intid != machine::NONE {
                break intid;
            }
        };
        machine::end(intid);
    }
}

/// Device and vendor ID of the controller.
const NVME: u32 = 0x0010_1b36;
/// Length of its registers, with the doorbells of the admin queues.
const NVME_LENGTH: u64 = 0x4000;
/// Opcodes of commands that the controller itself executes, with their dword 10 (5.17, 5.27).
const IDENTIFY: (u32, u32) = (0x06, 1);
const SET_TIMESTAMP: (u32, u32) = (0x09, 0x0e);

/// Lets an NVMe controller read and write memory at `outside`, which the suite checks afterwards.
pub(crate) fn stray(outside: u64) -> ! {
    let registers = Region::new(enable(find(NVME)), NVME_LENGTH).expect("the window is no end");
    let controller = Nvme::new(pci::mapped(registers), 0);
    controller.start().expect("the controller does not start");
    let run = |(opcode, more), data| {
        controller.submit(0, [opcode, 0], data, [more, 0]);
        let is_done = || {
            controller.complete(0);
            controller.is_idle(0)
        };
        cpu::wait_until(500, is_done)
    };
    let inside = Layout::apart().configuration;
    assert!(run(IDENTIFY, inside), "the controller does not complete a command");
    let vendor = machine::read(inside, 2) as u16;
    println!("{}", Fact::from(StrayDmaFact::Inside { vendor }));
    run(SET_TIMESTAMP, outside);
    run(IDENTIFY, outside);
    let completes = run(IDENTIFY, inside);
    println!("{}", Fact::from(StrayDmaFact::AfterOutside { completes }));
    power::system_off()
}
