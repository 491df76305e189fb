//! Guest physical addresses of the machine's register frames.

use crate::config::{V2mConfig, VgicConfig, cpu};
use crate::frames::its::Its;
use crate::monitor::events::RegisterFrame;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;
use doorbell_fallible::{OutOfMemory, try_collect_exact};
use gic_arch::{IntIdField, gicd, gicr, gits};
use msi_types::Cpu;

/// Range of guest physical addresses claimed by the model.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Region {
    /// The addresses.
    pub addresses: Range<u64>,
    /// Kind of registers at these addresses.
    pub block: Block,
}

/// Kind of registers in a [`Region`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// The distributor.
    Distributor,
    /// A redistributor region, by its index in [`VgicConfig::redistributors`].
    Redistributors(usize),
    /// An ITS, by its index in [`VgicConfig::its`].
    Its(usize),
    /// A frame with only the doorbells for message-based SPIs: [`VgicConfig::mbi_alias`].
    MbiAlias,
    /// A GICv2m frame, by its index in [`VgicConfig::v2m`].
    V2m(usize),
}

/// Frame that contains an accessed address.
#[derive(Clone, Copy)]
pub(crate) enum FrameAt<'a> {
    Distributor,
    /// The alias frame for message-based SPIs, by its base address.
    MbiAlias(u64),
    Redistributor(Cpu),
    Its(&'a Its),
    V2m(&'a V2mConfig),
    /// Unused space in a redistributor region, after the last redistributor or between two
    /// redistributors.
    Empty,
}

/// Distributor arrays that show pending or active state.
const DISTRIBUTOR_STATE: &[IntIdField] = &[
    gicd::ISPENDR,
    gicd::ICPENDR,
    gicd::ISACTIVER,
    gicd::ICACTIVER,
    gicd::ISPENDR_E,
    gicd::ICPENDR_E,
    gicd::ISACTIVER_E,
    gicd::ICACTIVER_E,
];
/// Redistributor arrays that show pending or active state. Extended PPIs follow in the same arrays.
const REDISTRIBUTOR_STATE: &[IntIdField] =
    &[gicr::ISPENDR, gicr::ICPENDR, gicr::ISACTIVER, gicr::ICACTIVER];

impl FrameAt<'_> {
    /// Returns `true` if the frame's register at this offset shows the pending or active state of
    /// interrupts that may be in list registers.
    pub(super) fn shows_listed_state(self, offset: u32) -> bool {
        let arrays = match self {
            Self::Distributor => DISTRIBUTOR_STATE,
            Self::Redistributor(_) => REDISTRIBUTOR_STATE,
            _ => return false,
        };
        arrays.iter().any(|array| array.fields_at(offset & !3).is_some())
    }

    /// Returns the frame at `base` as a fault reports it.
    pub(super) const fn at(self, base: u64) -> RegisterFrame {
        match self {
            Self::Distributor => RegisterFrame::Distributor(base),
            Self::MbiAlias(_) => RegisterFrame::MbiAlias(base),
            Self::Redistributor(_) | Self::Empty => RegisterFrame::Redistributor(base),
            Self::Its(_) => RegisterFrame::Its(base),
            Self::V2m(_) => RegisterFrame::V2m(base),
        }
    }
}

/// The model's regions, in address order.
pub(crate) struct AddressMap(Box<[Region]>);

impl AddressMap {
    /// Collects a machine's regions.
    pub(crate) fn new(config: &VgicConfig) -> Result<Self, OutOfMemory> {
        let alias = config.mbi_alias.map(|base| Region {
            addresses: base..base + gicd::FRAME_SIZE,
            block: Block::MbiAlias,
        });
        let v2m = config.v2m.iter().enumerate().map(|(index, frame)| Region {
            addresses: frame.base..frame.base + V2mConfig::SIZE,
            block: Block::V2m(index),
        });
        let distributor = config.distributor..config.distributor + gicd::FRAME_SIZE;
        let redistributors =
            config.redistributors.iter().enumerate().map(|(index, region)| Region {
                addresses: region.base..region.base + region.stride * u64::from(region.count),
                block: Block::Redistributors(index),
            });
        let its = config.its.iter().enumerate().map(|(index, its)| Region {
            addresses: its.base..its.base + gits::SIZE,
            block: Block::Its(index),
        });
        let regions =
            core::iter::once(Region { addresses: distributor, block: Block::Distributor })
                .chain(redistributors)
                .chain(its)
                .chain(alias)
                .chain(v2m)
                .filter(|region| !region.addresses.is_empty());
        let mut regions = try_collect_exact(regions)?;
        regions.sort_unstable_by_key(|region| region.addresses.start);
        Ok(Self(regions.into_boxed_slice()))
    }

    pub(super) const fn regions(&self) -> &[Region] {
        &self.0
    }

    /// Returns the region that contains an address.
    pub(super) fn region(&self, address: u64) -> Option<&Region> {
        let after = self.0.partition_point(|region| region.addresses.start <= address);
        self.0.get(after.checked_sub(1)?).filter(|region| region.addresses.contains(&address))
    }

    /// Returns the frame at an address, and the offset within the frame.
    #[inline]
    pub(super) fn frame_at<'a>(
        &self,
        config: &'a VgicConfig,
        its: &'a [Arc<Its>],
        address: u64,
    ) -> Option<(FrameAt<'a>, u32)> {
        first(config, its, address).or_else(|| self.search(config, its, address))
    }

    /// Finds a frame like [`frame_at`](Self::frame_at), wherever it is.
    #[inline(never)]
    fn search<'a>(
        &self,
        config: &'a VgicConfig,
        its: &'a [Arc<Its>],
        address: u64,
    ) -> Option<(FrameAt<'a>, u32)> {
        let region = self.region(address)?;
        let offset = address - region.addresses.start;
        let frame = match region.block {
            Block::Its(index) => FrameAt::Its(its.get(index)?),
            Block::Distributor => FrameAt::Distributor,
            Block::Redistributors(index) => return redistributor(config, index, offset),
            Block::MbiAlias => FrameAt::MbiAlias(region.addresses.start),
            Block::V2m(index) => FrameAt::V2m(config.v2m.get(index)?),
        };
        Some((frame, low_offset(offset)))
    }
}

/// Returns the redistributor at `offset` bytes into a region, and the offset within its frames.
#[inline]
fn redistributor(config: &VgicConfig, region: usize, offset: u64) -> Option<(FrameAt<'_>, u32)> {
    let stride = config.redistributors.get(region)?.stride;
    let before: u64 =
        config.redistributors.iter().take(region).map(|before| u64::from(before.count)).sum();
    let index = usize::try_from(before + offset / stride).ok()?;
    let within = low_offset(offset % stride);
    let is_present = index < config.cpus.len() && u64::from(within) < gicr::STRIDE_V3;
    let frame = if is_present { FrameAt::Redistributor(cpu(index)) } else { FrameAt::Empty };
    Some((frame, within))
}

/// Returns the frame at an address of the first ITS or of the first region of redistributors, and
/// the offset within the frame. Most machines have one of each, and their guests access them most.
#[inline]
fn first<'a>(
    config: &'a VgicConfig,
    its: &'a [Arc<Its>],
    address: u64,
) -> Option<(FrameAt<'a>, u32)> {
    if let Some((its, configured)) = its.first().zip(config.its.first())
        && let Some(offset) = address.checked_sub(configured.base)
        && offset < gits::SIZE
    {
        return Some((FrameAt::Its(its), low_offset(offset)));
    }
    let region = config.redistributors.first()?;
    let offset = address.checked_sub(region.base)?;
    let is_inside = offset < region.stride * u64::from(region.count);
    if is_inside { redistributor(config, 0, offset) } else { None }
}

/// Truncates an offset in a frame to 32 bits. A redistributor's stride may be as large as 4 GiB,
/// but its frames are always at the start.
fn low_offset(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
