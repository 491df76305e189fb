//! The registers of each kind of controller.

use crate::Mmio;
use core::fmt;
use msi_types::MsiMessage;

/// Number of vectors in a block, which has one status word.
pub const BLOCK_VECTORS: u32 = 32;
/// Most blocks of one controller.
const BLOCKS: u32 = 8;
/// A bit for each block.
pub(super) const ALL_BLOCKS: u32 = (1 << BLOCKS) - 1;
/// Length of the registers in bytes.
pub(super) const BYTES: u64 = 0x1000;

/// The kind of a controller inside a host bridge.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum BridgeKind {
    /// DesignWare's iMSI-RX: one line for each block of 32 vectors, or for all. The registers are
    /// those of the bridge's data bus interface (DBI).
    ImsiRx,
    /// MediaTek's bridges of the third generation: 8 blocks on one line, which interrupt pins also
    /// raise. The registers are those of the bridge's MAC (`pcie-mac`).
    ///
    /// No emulator has this controller. The driver follows the public register names of Linux's
    /// `pcie-mediatek-gen3.c`.
    MediatekGen3,
}

impl BridgeKind {
    #[inline]
    pub(super) const fn layout(self) -> &'static Layout {
        match self {
            Self::ImsiRx => &IMSI_RX,
            Self::MediatekGen3 => &MEDIATEK_GEN3,
        }
    }

    /// Returns the name of the kind, as in a description.
    pub const fn name(self) -> &'static str {
        self.layout().name
    }
}

impl fmt::Display for BridgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Offset of block 0's register, the distance to that of the next block, and the registers' name.
#[derive(Clone, Copy)]
struct PerBlock(u32, u32, &'static str);

impl PerBlock {
    #[inline]
    const fn of(self, block: u32) -> u32 {
        self.0 + block * self.1
    }
}

/// Registers of 32 bits, by their offsets. Bit n of a block's register is vector n of the block.
pub(super) struct Layout {
    name: &'static str,
    /// Vectors that arrived. A written 1 clears the bit.
    status: PerBlock,
    /// Vectors whose messages the bridge accepts.
    enable: PerBlock,
    /// Vectors that do not raise their line, although their status is kept.
    mask: Option<PerBlock>,
    address_low: PerBlock,
    address_high: PerBlock,
    /// Offset of the default doorbell from the registers' address.
    doorbell: u64,
    /// What distinguishes the blocks' messages.
    blocks: Blocks,
    summary: Option<Summary>,
}

enum Blocks {
    /// The data's bits 5 to 7 select the block, which may have a line of its own.
    ByData,
    /// All blocks raise the same line. Each has its own address, at this distance from the last.
    ByAddress(u32),
}

/// A register that a vector needs.
pub(super) struct Need {
    pub(super) name: &'static str,
    pub(super) offset: u32,
    /// The bits that matter to the vector, and their value.
    pub(super) bits: u32,
    pub(super) value: u32,
}

impl Need {
    const fn of(
        PerBlock(first, distance, name): PerBlock,
        block: u32,
        bits: u32,
        value: u32,
    ) -> Self {
        Self { name, offset: first + block * distance, bits, value }
    }
}

/// Registers that show and control which blocks raise the line.
struct Summary {
    status: u32,
    /// Position of block 0.
    shift: u32,
    /// Register with a bit for each block at `shift`, to be set.
    enable: u32,
    /// Register with a bit for each block from bit 0 on, to be set.
    capture: u32,
}

/// The MSI registers in DesignWare's port logic (i.MX 8M Plus Reference Manual, "PCIe port logic":
/// `MSI_CTRL_ADDR_OFF`, `MSI_CTRL_INT_0_EN_OFF`, `_MASK_OFF`, `_STATUS_OFF`).
const IMSI_RX: Layout = Layout {
    name: "imsi-rx",
    status: PerBlock(0x830, 12, "MSI_CTRL_INT_<n>_STATUS"),
    enable: PerBlock(0x828, 12, "MSI_CTRL_INT_<n>_EN"),
    mask: Some(PerBlock(0x82c, 12, "MSI_CTRL_INT_<n>_MASK")),
    address_low: PerBlock(0x820, 0, "MSI_CTRL_ADDR"),
    address_high: PerBlock(0x824, 0, "MSI_CTRL_UPPER_ADDR"),
    doorbell: 0,
    blocks: Blocks::ByData,
    summary: None,
};

/// Bits 8 to 15 of `PCIE_INT_ENABLE` and `PCIE_INT_STATUS` are the sets of vectors. The bits of the
/// latter may be latched: Linux clears a bit after it has handled the set. This driver clears it
/// first. A later message to an empty set then sets it again, also where only edges are latched. No
/// document states whether a vector keeps its status while the enable register of its set excludes
/// it, so that register is never used as a mask.
const MEDIATEK_GEN3: Layout = Layout {
    name: "mediatek-gen3",
    status: PerBlock(0xc04, 0x10, "PCIE_MSI_SET<n>_STATUS"),
    enable: PerBlock(0xc08, 0x10, "PCIE_MSI_SET<n>_ENABLE"),
    mask: None,
    address_low: PerBlock(0xc00, 0x10, "PCIE_MSI_SET<n>_BASE"),
    address_high: PerBlock(0xc80, 4, "PCIE_MSI_SET<n>_ADDR_HI"),
    doorbell: 0xc00,
    blocks: Blocks::ByAddress(0x10),
    summary: Some(Summary { status: 0x184, shift: 8, enable: 0x180, capture: 0x190 }),
};

impl Layout {
    pub(super) const fn most_lines(&self) -> usize {
        match self.blocks {
            Blocks::ByData => BLOCKS as usize,
            Blocks::ByAddress(_) => 1,
        }
    }

    /// Returns the number of blocks of a controller with this many lines. All blocks may share the
    /// only line.
    pub(super) fn blocks(&self, lines: usize, is_shared: bool) -> u32 {
        match self.blocks {
            Blocks::ByData if lines != 1 || !is_shared => {
                u32::try_from(lines).unwrap_or(BLOCKS).min(BLOCKS)
            }
            _ => BLOCKS,
        }
    }

    pub(super) const fn doorbell(&self, registers: u64) -> u64 {
        registers.wrapping_add(self.doorbell)
    }

    /// Returns the message of the vector with this index.
    pub(super) const fn message(&self, doorbell: u64, index: u32) -> MsiMessage {
        match self.blocks {
            Blocks::ByData => MsiMessage { address: doorbell, data: index },
            Blocks::ByAddress(distance) => MsiMessage {
                address: doorbell.wrapping_add((index / BLOCK_VECTORS * distance) as u64),
                data: index % BLOCK_VECTORS,
            },
        }
    }

    #[inline]
    pub(super) const fn status(&self, block: u32) -> u32 {
        self.status.of(block)
    }

    pub(super) const fn enable(&self, block: u32) -> u32 {
        self.enable.of(block)
    }

    pub(super) fn mask(&self, block: u32) -> Option<u32> {
        self.mask.map(|mask| mask.of(block))
    }

    pub(super) fn set_address(&self, frame: &impl Mmio, block: u32, doorbell: u64) {
        for Need { offset, value, .. } in self.address(block, doorbell) {
            frame.write32(offset, value);
        }
    }

    fn address(&self, block: u32, doorbell: u64) -> [Need; 2] {
        let MsiMessage { address, .. } = self.message(doorbell, block * BLOCK_VECTORS);
        let [low, high] = [address, address >> 32].map(|half| (half & 0xffff_ffff) as u32);
        [(self.address_low, low), (self.address_high, high)]
            .map(|(register, half)| Need::of(register, block, u32::MAX, half))
    }

    /// Returns the registers that an enabled, unmasked vector of a block needs.
    pub(super) fn needs(&self, block: u32, bit: u32, doorbell: u64) -> impl Iterator<Item = Need> {
        let enable = Need::of(self.enable, block, bit, bit);
        let mask = self.mask.map(|mask| Need::of(mask, block, bit, 0));
        let summary = self.summary.as_ref().map(|&Summary { shift, enable, capture, .. }| {
            let bit = 1 << block;
            [(capture, "PCIE_MSI_SET_ENABLE", bit), (enable, "PCIE_INT_ENABLE", bit << shift)]
                .map(|(offset, name, bit)| Need { name, offset, bits: bit, value: bit })
        });
        let block = self.address(block, doorbell).into_iter().chain([enable]).chain(mask);
        block.chain(summary.into_iter().flatten())
    }

    /// Lets all blocks capture messages and raise the line.
    pub(super) fn turn_on(&self, frame: &impl Mmio) {
        if let Some(Summary { shift, enable, capture, .. }) = self.summary {
            frame.write32(capture, frame.read32(capture) | ALL_BLOCKS);
            frame.write32(enable, frame.read32(enable) | ALL_BLOCKS << shift);
        }
    }

    /// Clears the summary's bits of these blocks; a bit whose block still raises the line may stay.
    #[inline]
    pub(super) fn clear(&self, frame: &impl Mmio, blocks: u32) {
        if let Some(Summary { status, shift, .. }) = self.summary {
            frame.write32(status, blocks << shift);
        }
    }

    /// Returns the blocks that raise the line, bit n for block n, or `None` without a register for
    /// them. Other bits of that register, such as those of interrupt pins, are left out.
    #[inline]
    pub(super) fn raising(&self, frame: &impl Mmio) -> Option<u32> {
        let summary = self.summary.as_ref()?;
        Some(frame.read32(summary.status) >> summary.shift & ALL_BLOCKS)
    }
}
