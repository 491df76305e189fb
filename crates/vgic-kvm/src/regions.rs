//! Regions of redistributors, as KVM takes and fills them.

use crate::abi::{self, Errno, frame};
use alloc::vec::Vec;
use gic_arch::{gicd, gicr};
use vgic::RedistributorRegion;

/// The regions by ascending number; vCPUs fill them in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Regions(Vec<Region>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Region {
    index: u8,
    base: u64,
    /// `None`: for as many as there are vCPUs.
    count: Option<u16>,
    /// Redistributors in it that have a vCPU.
    placed: usize,
}

/// Frames and limits that a region must not conflict with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// vCPUs, by which a region without a count is measured.
    pub(super) cpus: usize,
    pub(super) distributor: Option<u64>,
    pub(super) address_bits: u8,
}

impl Surroundings {
    /// Is there a place for a frame that has none yet?
    ///
    /// `EINVAL` if it is misaligned or wraps around, `E2BIG` beyond the address space.
    pub(super) fn check_place(&self, base: u64, bytes: u64) -> Result<(), Errno> {
        if !base.is_multiple_of(gicd::FRAME_SIZE) {
            return Err(Errno::Invalid);
        }
        let end = base.checked_add(bytes).ok_or(Errno::Invalid)?;
        let space = 1_u64.checked_shl(self.address_bits.into()).unwrap_or(u64::MAX);
        if base >= space || end > space { Err(Errno::TooBig) } else { Ok(()) }
    }

    fn distributor_overlaps(&self, base: u64, bytes: u64) -> bool {
        self.distributor.is_some_and(|other| overlap((base, bytes), (other, gicd::FRAME_SIZE)))
    }
}

impl Region {
    fn bytes(&self, cpus: usize) -> u64 {
        gicr::STRIDE_V3 * self.count.map_or(cpus as u64, u64::from)
    }

    fn has_room(&self) -> bool {
        self.count.is_none_or(|count| self.placed < usize::from(count))
    }
}

impl Regions {
    /// One more region. That it overlaps with the distributor is seen here only of one without a
    /// count; of others when a vCPU is placed.
    pub(super) fn add(
        &mut self,
        base: u64,
        count: Option<u16>,
        index: u8,
        around: &Surroundings,
    ) -> Result<(), Errno> {
        let region = Region { index, base, count, placed: 0 };
        let bytes = region.bytes(around.cpus);
        base.checked_add(bytes).ok_or(Errno::Invalid)?;
        self.check_order(count, index)?;
        let overlaps = count.is_none() && around.distributor_overlaps(base, bytes);
        if overlaps || self.overlaps(base, bytes, around.cpus) {
            return Err(Errno::Invalid);
        }
        around.check_place(base, bytes)?;
        self.0.push(region);
        Ok(())
    }

    /// Numbers have no gap, and a region without a count is alone or the first.
    fn check_order(&self, count: Option<u16>, index: u8) -> Result<(), Errno> {
        match (self.0.last(), count) {
            (None, _) if index == 0 => Ok(()),
            (Some(Region { count: None, .. }), None) => Err(Errno::Exists),
            (Some(last), Some(_)) if last.index.checked_add(1) == Some(index) => Ok(()),
            _ => Err(Errno::Invalid),
        }
    }

    /// Gives vCPUs their redistributors, up to so many vCPUs or until no region has room.
    ///
    /// `EINVAL`, with nothing done, if one should be placed and regions overlap with the
    /// distributor.
    pub(super) fn place(&mut self, cpus: usize, around: &Surroundings) -> Result<(), Errno> {
        if self.placed() >= cpus || !self.0.iter().any(Region::has_room) {
            return Ok(());
        }
        if !self.are_apart(around) {
            return Err(Errno::Invalid);
        }
        let mut left = cpus - self.placed();
        for region in &mut self.0 {
            let room = region.count.map_or(left, |count| usize::from(count) - region.placed);
            region.placed += room.min(left);
            left -= room.min(left);
        }
        Ok(())
    }

    /// Do they fit the address space, and not overlap with the distributor?
    pub(super) fn are_apart(&self, around: &Surroundings) -> bool {
        let fits =
            |region: &Region| around.check_place(region.base, region.bytes(around.cpus)).is_ok();
        let distributor = around
            .distributor
            .is_some_and(|base| self.overlaps(base, gicd::FRAME_SIZE, around.cpus));
        self.0.iter().all(fits) && !distributor
    }

    fn overlaps(&self, base: u64, bytes: u64, cpus: usize) -> bool {
        self.0.iter().any(|region| overlap((base, bytes), (region.base, region.bytes(cpus))))
    }

    /// Number of vCPUs with a redistributor. These are the first in order.
    pub(super) fn placed(&self) -> usize {
        self.0.iter().map(|region| region.placed).sum()
    }

    /// Address of the first region.
    pub(super) fn first(&self) -> u64 {
        self.0.first().map_or(frame::NOWHERE, |region| region.base)
    }

    /// The region of this number, as KVM codes it; one without a count has zero there.
    pub(super) fn get(&self, index: u8) -> Option<u64> {
        let region = self.0.iter().find(|region| region.index == index)?;
        let coded = abi::RedistributorRegion::new()
            .with_index(index.into())
            .with_count(region.count.unwrap_or(0));
        // Of a region without a count, the address can have bits that this form has no place for.
        Some(coded.into_bits() | region.base)
    }

    /// For the model.
    pub(super) fn config(&self, cpus: usize) -> Vec<RedistributorRegion> {
        let region = |region: &Region| {
            let count = region.count.map_or(u32::try_from(cpus).unwrap_or(u32::MAX), u32::from);
            RedistributorRegion::new(region.base, count)
        };
        self.0.iter().map(region).collect()
    }
}

/// Do two blocks overlap? No sum of these wraps around.
const fn overlap((first, first_bytes): (u64, u64), (second, second_bytes): (u64, u64)) -> bool {
    first.saturating_add(first_bytes) > second && first < second.saturating_add(second_bytes)
}
