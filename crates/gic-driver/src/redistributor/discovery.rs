//! Redistributor discovery. Firmware describes regions, each with one or more redistributors at a
//! fixed stride.

use super::Redistributor;
use crate::{Block, GicError, PhysicalRegion, Platform};
use gic_arch::Affinity;
use gic_arch::gicr::{FRAME_SIZE, STRIDE_V3, STRIDE_V4, VLPI_BASE};

/// A redistributor region from firmware.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct RedistributorRegion {
    /// The region.
    pub(crate) region: PhysicalRegion,
    pub(crate) stride: Option<u64>,
}

impl RedistributorRegion {
    /// Creates a region whose stride the driver determines from `GICR_TYPER.VLPIS`.
    pub const fn new(region: PhysicalRegion) -> Self {
        Self { region, stride: None }
    }

    msi_types::setters! {
        /// Sets the distance between two redistributors in bytes, if given by firmware
        /// (`redistributor-stride`). If `None`, the driver determines the distance from
        /// `GICR_TYPER.VLPIS`.
        with_stride: stride: Option<u64>,
    }
}

/// Iterator over a region's redistributors, in address order. The iterator ends after the
/// redistributor with `GICR_TYPER.Last`, at the end of the region, or after the first error. The
/// iterator takes at most one step per 128 KiB of the region.
#[derive(Debug)]
pub struct RedistributorWalk<'a, P> {
    platform: &'a P,
    region: RedistributorRegion,
    /// Offset of the next redistributor; `None` at the end.
    next: Option<u64>,
}

/// Walks the redistributors of one region.
///
/// Context: task; may sleep.
pub fn walk_redistributors<P: Platform>(
    platform: &P,
    region: RedistributorRegion,
) -> RedistributorWalk<'_, P> {
    RedistributorWalk { platform, region, next: Some(0) }
}

/// Finds a PE's redistributor.
///
/// Context: task; may sleep.
///
/// # Errors
/// If no region contains the redistributor, the first error encountered in a region, or
/// [`GicError::NoRedistributor`] if all regions were walked to the end.
pub fn find_redistributor<P: Platform>(
    platform: &P,
    regions: &[RedistributorRegion],
    affinity: Affinity,
) -> Result<Redistributor<P::Mmio>, GicError> {
    let mut cause = None;
    for region in regions {
        for redistributor in walk_redistributors(platform, *region) {
            match redistributor {
                Ok(redistributor) if redistributor.affinity() == affinity => {
                    return Ok(redistributor);
                }
                Ok(_) => {}
                Err(error) => cause = cause.or(Some(error)),
            }
        }
    }
    Err(cause.unwrap_or(GicError::NoRedistributor(affinity)))
}

impl<P: Platform> Iterator for RedistributorWalk<'_, P> {
    type Item = Result<Redistributor<P::Mmio>, GicError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.next.take()?;
        if offset >= self.region.region.bytes {
            return None;
        }
        let found = self.look_at(offset);
        if let Ok(redistributor) = &found
            && !redistributor.typer().last()
        {
            let stride = self.region.stride.unwrap_or_else(|| redistributor.typer().stride());
            self.next = offset.checked_add(stride);
        }
        Some(found)
    }
}

impl<P: Platform> RedistributorWalk<'_, P> {
    fn look_at(&self, offset: u64) -> Result<Redistributor<P::Mmio>, GicError> {
        let PhysicalRegion { base, bytes } = self.region.region;
        if let Some(stride) = self.region.stride
            && (stride < STRIDE_V3 || stride % FRAME_SIZE != 0)
        {
            return Err(GicError::BadStride { base, stride });
        }
        let at = base.saturating_add(offset);
        if bytes - offset < STRIDE_V3 || at.checked_add(STRIDE_V4).is_none() {
            return Err(GicError::RegionTruncated { base, at });
        }
        let frames = PhysicalRegion { base: at, bytes: STRIDE_V3 };
        let block = Block::Redistributor(at);
        let mmio = self.platform.map(frames).ok_or(GicError::NotMapped(block))?;
        let redistributor = Redistributor::new(mmio, at)?;
        // The stride or region that firmware describes may be too small for a redistributor's
        // frames.
        let stride = self.region.stride.unwrap_or(STRIDE_V4);
        let has_room = stride >= STRIDE_V4 && bytes - offset >= STRIDE_V4;
        if !redistributor.typer().vlpis() || !has_room {
            return Ok(redistributor);
        }
        let frame = PhysicalRegion { base: at + u64::from(VLPI_BASE), bytes: FRAME_SIZE };
        let mmio = self.platform.map(frame).ok_or(GicError::NotMapped(block))?;
        Ok(redistributor.with_vlpi_frame(mmio))
    }
}
