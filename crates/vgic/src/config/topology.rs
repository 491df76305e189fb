//! Configuration for a machine's vCPUs and redistributor regions.

use gic_arch::{Affinity, gicr};

/// Configuration for one vCPU in a [`VgicConfig`](super::VgicConfig). Later versions may add
/// fields; the values that [`new`](Self::new) sets for them keep the behavior of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuConfig {
    /// Affinity, as in the vCPU's `MPIDR_EL1`. Affinities must be unique, but may be sparse.
    pub affinity: Affinity,
    /// `GICR_TYPER.Processor_Number`. ITS commands may specify this number as their target. Must be
    /// unique.
    pub processor_number: u16,
}

impl CpuConfig {
    /// Creates the configuration for a vCPU with this affinity and processor number.
    pub const fn new(affinity: Affinity, processor_number: u16) -> Self {
        Self { affinity, processor_number }
    }

    /// Configures vCPU `index` as on QEMU's `virt` machine: Aff0 counts vCPUs within a cluster of
    /// 16, Aff1 counts clusters, and Aff2 holds the overflow from Aff1.
    pub const fn in_clusters_of_sixteen(index: u16) -> Self {
        let [cluster, _] = (index / 16).to_le_bytes();
        let [aff2, _] = (index / 16 / 256).to_le_bytes();
        let [aff0, _] = (index % 16).to_le_bytes();
        Self::new(Affinity::new(0, aff2, cluster, aff0), index)
    }

    msi_types::setters! {
        with_affinity: affinity: Affinity,
        with_processor_number: processor_number: u16,
    }
}

/// Range of consecutive redistributors. Firmware tables should describe contiguous regions as one:
/// in the last redistributor of a region that another one continues, `GICR_TYPER.Last` is 0, and
/// Linux then walks on, beyond the region that it has mapped. Later versions may add fields; the
/// values that [`new`](Self::new) sets for them keep the behavior of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RedistributorRegion {
    /// Guest physical address of the first redistributor's RD_base, aligned to 64 KiB.
    pub base: u64,
    /// Distance between redistributors in bytes: a multiple of 64 KiB, at least
    /// [`gicr::STRIDE_V3`]. Guests assume exactly this minimum if their firmware tables don't
    /// specify a stride.
    pub stride: u64,
    /// Number of redistributors that fit in the region.
    pub count: u32,
}

impl RedistributorRegion {
    /// Creates a region of `count` redistributors at `base`, [`gicr::STRIDE_V3`] apart.
    pub const fn new(base: u64, count: u32) -> Self {
        Self { base, stride: gicr::STRIDE_V3, count }
    }

    /// Creates a region for all redistributors on a machine, at the address that QEMU's `virt`
    /// uses.
    pub(super) fn in_one(cpus: u16) -> Self {
        Self::new(0x080a_0000, cpus.into())
    }

    /// Returns `true` if a walk over this region's redistributors must go on to the `next` region:
    /// they are contiguous (IHI 0069, `GICR_TYPER.Last`), and have one stride.
    fn is_continued_by(&self, next: &Self) -> bool {
        let bytes = u64::from(self.count).saturating_mul(self.stride);
        next.stride == self.stride && next.base == self.base.saturating_add(bytes)
    }

    msi_types::setters! {
        with_base: base: u64,
        with_stride: stride: u64,
        with_count: count: u32,
    }
}

/// Location of one redistributor's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RedistributorFrame {
    pub(crate) base: u64,
    /// `GICR_TYPER.Last`.
    pub(crate) last: bool,
}

/// Iterates over the redistributor frames of this many vCPUs, in order.
pub(super) fn redistributor_frames(
    regions: &[RedistributorRegion],
    vcpus: usize,
) -> impl Iterator<Item = RedistributorFrame> + Clone {
    let regions = filled_regions(regions, vcpus);
    regions.clone().flat_map(move |region| {
        let is_continued = regions.clone().any(|next| region.is_continued_by(&next));
        (1..=region.count).map(move |number| RedistributorFrame {
            base: region.base + u64::from(number - 1) * region.stride,
            last: number == region.count && !is_continued,
        })
    })
}

/// Iterates over the regions that contain vCPUs' redistributors, each shortened to those.
fn filled_regions(
    regions: &[RedistributorRegion],
    vcpus: usize,
) -> impl Iterator<Item = RedistributorRegion> + Clone {
    let filled = regions.iter().scan(vcpus, |left, region| {
        let count = u32::try_from(*left).unwrap_or(u32::MAX).min(region.count);
        *left -= count as usize;
        Some(region.with_count(count))
    });
    filled.take_while(|region| region.count > 0)
}
