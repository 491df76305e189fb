//! Checks and attacks the devices that QEMU's `virt` always has. Some guests use them at their
//! fixed addresses, without a devicetree node.

use crate::random::Random;
use crate::turns::Turns;
use crate::{exceptions, machine};

/// Addresses of the virtio-mmio transports, and size of each in bytes.
const TRANSPORTS: (u64, u64) = (0x0a00_0000, 0x200);
const TRANSPORT_COUNT: u64 = 32;
/// Registers that a transport without a device must have: `MagicValue`, `Version` and `DeviceID`
/// (VIRTIO 1.2, 4.2.2 and 4.2.3.1.1).
const REGISTERS: [(u64, u64); 3] = [(0, 0x7472_6976), (4, 2), (8, 0)];
/// `Status`. A driver that ignores the DeviceID may write it.
const STATUS: u64 = 0x70;
/// Addresses and first identification registers of the PL031 (DDI 0224, 3.3) and of the PL061
/// (DDI 0190, 3.3).
const PRIMECELLS: [(u64, u64); 2] = [(0x0901_0fe0, 0x31), (0x0903_0fe0, 0x61)];
/// Addresses of the banks of flash.
const BANKS: [u64; 2] = [0, 64 << 20];
/// PCI configuration space of function 00:1f.7, which is absent.
const ABSENT_FUNCTION: u64 = 0x40_1000_0000 + (0x1f << 15 | 7 << 12);
/// Data and selector of `fw_cfg` (QEMU, docs/specs/fw_cfg.rst).
const DATA: u64 = 0x0902_0000;
const SELECTOR: u64 = DATA + 8;

/// Returns `true` if each device answers, without an exception.
pub(crate) fn answer() -> bool {
    let before = exceptions::taken();
    let primecells = PRIMECELLS.iter().all(|(at, number)| machine::read(*at, 4) == *number);
    let transports = (0..TRANSPORT_COUNT).all(is_empty);
    let flash = BANKS.into_iter().all(is_flash);
    let bus = machine::read(ABSENT_FUNCTION, 4) as u32 == u32::MAX;
    let found = primecells && transports && flash && bus && has_configuration();
    found && exceptions::taken() == before
}

/// Makes flash show everything but its contents and then its contents, while it reads random pages,
/// and accesses random registers of the other devices.
pub(crate) fn attack(turns: &mut Turns) {
    const COMMANDS: [u64; 8] = [0x10, 0x20, 0x60, 0x90, 0x98, 0xd0, 0xe8, 0xff];
    let mut random = Random::here();
    while turns.next() {
        let bytes = 1 << random.below(4);
        let register = random.below(0x20) & !(bytes - 1);
        let device = [PRIMECELLS[0].0, PRIMECELLS[1].0, TRANSPORTS.0, DATA];
        let device = device[random.below(4) as usize] + register;
        machine::write(device, bytes as u8, random.value());
        machine::read(device, bytes as u8);
        let place = random.below(2 * BANKS[1]) & !7;
        machine::write(place, 4, 0x0001_0001 * COMMANDS[random.below(8) as usize]);
        machine::read(place, bytes as u8);
    }
}

/// Returns `true` if a virtio-mmio transport has no device.
fn is_empty(transport: u64) -> bool {
    let at = TRANSPORTS.0 + transport * TRANSPORTS.1;
    machine::write(at + STATUS, 4, 1);
    let registers = REGISTERS.iter().all(|(offset, value)| machine::read(at + offset, 4) == *value);
    registers && machine::read(at + STATUS, 4) == 0
}

/// Returns `true` if both chips of a bank answer a CFI query (JESD68.01), and the bank is empty.
fn is_flash(bank: u64) -> bool {
    machine::write(bank + 4 * 0x55, 4, 0x0098_0098);
    let query = machine::read(bank + 4 * 0x10, 4);
    machine::write(bank, 4, 0x00ff_00ff);
    query == 0x0051_0051 && machine::read(bank, 4) == 0
}

/// Returns `true` if `fw_cfg` has its signature, no DMA, and no files, and if items end in zeros.
fn has_configuration() -> bool {
    let select = |key: u16| machine::write(SELECTOR, 2, key.swap_bytes().into());
    let mut is_right = true;
    for (key, expected) in [
        (0, *b"QEMU\0\0"),
        (1, [1, 0, 0, 0, 0, 0]),
        // The bit that requests write access does not select another item.
        (0x4000, *b"QEMU\0\0"),
        (0x19, [0; 6]),
        (0x8001, [0; 6]),
        (0xffff, [0; 6]),
    ] {
        select(key);
        machine::write(DATA, 1, 1);
        let bytes = expected.map(|_| machine::read(DATA, 1) as u8);
        select(key);
        let words = [machine::read(DATA, 4) as u32, machine::read(DATA, 4) as u32];
        let [first, second, third, fourth, ..] = expected;
        let word = u32::from_le_bytes([first, second, third, fourth]);
        is_right &= bytes == expected && words == [word, 0];
    }
    is_right
}
