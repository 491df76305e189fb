//! Checks the virtio-mmio transports of QEMU's `virt`. Some guests probe them at their fixed
//! addresses, without a devicetree node.

use crate::{exceptions, machine};
use doorbell_facts::{Fact, HostileFact};
use image_rt::{power, println};

/// Address of the first transport, and size of each in bytes.
const TRANSPORTS: u64 = 0x0a00_0000;
const STRIDE: u64 = 0x200;
/// Registers that a transport without a device must have: `MagicValue`, `Version` and `DeviceID`
/// (VIRTIO 1.2, 4.2.2 and 4.2.3.1.1).
const REGISTERS: [(u64, u64); 3] = [(0, 0x7472_6976), (4, 2), (8, 0)];
/// `Status`. A driver that ignores the DeviceID may write it.
const STATUS: u64 = 0x70;

/// Checks the first `count` transports, and prints how many of them have no device.
pub(crate) fn check(count: u64) -> ! {
    exceptions::install();
    let is_empty = |transport: &u64| {
        let at = TRANSPORTS + transport * STRIDE;
        machine::write(at + STATUS, 4, 1);
        let registers =
            REGISTERS.iter().all(|(offset, value)| machine::read(at + offset, 4) == *value);
        registers && machine::read(at + STATUS, 4) == 0
    };
    let transports = (0..count).filter(is_empty).count() as u64;
    let exceptions = exceptions::taken();
    println!("{}", Fact::from(HostileFact::Empty { transports, exceptions }));
    power::system_off()
}
