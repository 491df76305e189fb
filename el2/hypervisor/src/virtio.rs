//! The virtio-mmio transports of `virt`, none of which has a device. The devicetree does not
//! describe them, but some guests probe them at their fixed addresses.

use core::ops::Range;

/// Addresses of `virt`'s 32 virtio-mmio transports.
const VIRTIO: Range<u64> = 0x0a00_0000..0x0a00_4000;
/// Bytes of each transport.
const STRIDE: u64 = 0x200;

/// Reads a register. Returns `None` if the address isn't in a transport.
///
/// A transport whose `DeviceID` is zero has no device. Drivers must read only its registers
/// `MagicValue`, `Version` and `DeviceID` (VIRTIO 1.2, 4.2.3.1.1); the others read as zero.
pub(crate) fn read(address: u64) -> Option<u64> {
    /// `MagicValue`: "virt" in little-endian ASCII.
    const MAGIC: u64 = 0x7472_6976;
    const VERSION: u64 = 2;
    VIRTIO.contains(&address).then_some(match address % STRIDE {
        0x0 => MAGIC,
        0x4 => VERSION,
        _ => 0,
    })
}

/// Ignores a write. Returns `None` if the address isn't in a transport.
pub(crate) fn write(address: u64) -> Option<()> {
    VIRTIO.contains(&address).then_some(())
}
