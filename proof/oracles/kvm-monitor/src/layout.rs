//! The guest's address map, which is that of QEMU's `virt` machine.

use gic_arch::{gicd, gicr, gits};
use std::ops::Range;

/// Number of vCPUs.
pub(crate) const CPUS: u64 = 2;
/// Number of INTIDs below 1024, including the private ones.
pub(crate) const INTERRUPTS: u32 = 96;

/// Registers of the distributor.
pub(crate) const DISTRIBUTOR: Range<u64> = 0x0800_0000..0x0800_0000 + gicd::FRAME_SIZE;
/// Registers of the ITS.
pub(crate) const ITS: Range<u64> = 0x0808_0000..0x0808_0000 + gits::SIZE;
/// The redistributors' registers, which are contiguous.
pub(crate) const REDISTRIBUTORS: Range<u64> = 0x080a_0000..0x080a_0000 + CPUS * gicr::STRIDE_V3;
/// Registers of the PL011.
pub(crate) const UART: Range<u64> = 0x0900_0000..0x0900_1000;
/// Address window for functions' memory regions, below 4 GiB.
pub(crate) const PCI_WINDOW: Range<u64> = 0x1000_0000..0x3eff_0000;
/// ECAM window of bus 0.
pub(crate) const ECAM: Range<u64> = 0x3f00_0000..0x3f10_0000;
/// RAM. The image is loaded at the start of RAM.
pub(crate) const RAM: Range<u64> = 0x4000_0000..0x4400_0000;
/// Address of the devicetree in RAM.
pub(crate) const DEVICETREE: u64 = RAM.end - (2 << 20);
