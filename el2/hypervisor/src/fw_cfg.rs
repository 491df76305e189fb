//! `fw_cfg`, from which firmware for QEMU's `virt` reads its configuration (QEMU,
//! docs/specs/fw_cfg.rst). It has the signature, the features, the number of vCPUs, and an empty
//! directory of files, and cannot access memory (DMA).

use core::ops::Range;
use image_rt::lock::IrqMutex;
use vgic::{AccessWidth, Vgic};

/// Addresses of the registers.
pub(crate) const REGISTERS: Range<u64> = 0x0902_0000..0x0902_000a;
/// Register for the bytes of the selected item, in the order of memory.
const DATA: u64 = REGISTERS.start;
/// Register for the key of an item: 16 bits in big-endian order.
const SELECTOR: u64 = DATA + 8;
/// Bit of a key that requests write access, which no item grants.
const WRITE: u16 = 1 << 14;
/// Keys of items. All others are empty, as the directory is but for its length, which is zero.
const SIGNATURE: u16 = 0;
const FEATURES: u16 = 1;
const VCPUS: u16 = 5;
/// Feature: the registers above.
const TRADITIONAL: u32 = 1;

/// A guest's `fw_cfg`: the key of the selected item, and the number of bits that have been read.
pub(crate) struct FwCfg(IrqMutex<(u16, u32)>);

impl FwCfg {
    pub(crate) const fn new() -> Self {
        Self(IrqMutex::new((SIGNATURE, 0)))
    }

    /// Reads the next bytes of the selected item, whose end is followed by zeros. Returns `None` if
    /// the address isn't the data register's.
    pub(crate) fn read(&self, vgic: &Vgic, address: u64, width: AccessWidth) -> Option<u64> {
        let item = |key| match key {
            SIGNATURE => u32::from_le_bytes(*b"QEMU"),
            FEATURES => TRADITIONAL,
            VCPUS => vgic.config().cpus.len() as u32,
            _ => 0,
        };
        (address == DATA).then(|| {
            self.0.with(|(key, offset)| {
                let rest = u64::from(item(*key)).checked_shr(*offset).unwrap_or(0);
                *offset = offset.saturating_add(8 * width.bytes());
                rest & width.mask()
            })
        })
    }

    /// Selects an item, or ignores a store to the data register. Returns `None` if the address
    /// isn't a register's.
    pub(crate) fn write(&self, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        let selects = address == SELECTOR && width == AccessWidth::Half;
        if selects {
            self.0.with(|state| *state = ((value as u16).swap_bytes() & !WRITE, 0));
        }
        (selects || address == DATA).then_some(())
    }
}
