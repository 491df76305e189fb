//! Configuration of a machine's vCPUs and of the regions of their redistributors.

use gic_arch::{Affinity, gicr};

/// Configuration of one vCPU of a [`VgicConfig`](super::VgicConfig). Later versions may add fields;
/// the values that [`new`](Self::new) sets for them keep the behavior of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuConfig {
    /// Affinity in the vCPU's `MPIDR_EL1`. Affinities must be unique, but may be sparse.
    pub affinity: Affinity,
    /// `GICR_TYPER.Processor_Number`, by which ITS commands name the vCPU. Must be unique.
    pub processor_number: u16,
}

impl CpuConfig {
    /// Creates the configuration of a vCPU with this affinity and processor number.
    pub const fn new(affinity: Affinity, processor_number: u16) -> Self {
        Self { affinity, processor_number }
    }

    /// Creates vCPU `index` of a machine like QEMU's `virt`: Aff0 counts vCPUs within a cluster of
    /// 16, Aff1 counts clusters, and Aff2 continues Aff1.
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

/// Consecutive redistributors. Later versions may add fields; the values that [`new`](Self::new)
/// sets for them keep the behavior of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RedistributorRegion {
    /// Guest physical address of the first redistributor's RD_base, aligned to 64 KiB.
    pub base: u64,
    /// Distance between two redistributors in bytes: a multiple of 64 KiB, at least
    /// [`gicr::STRIDE_V3`]. Guests whose firmware tables specify no stride assume exactly this
    /// minimum.
    pub stride: u64,
    /// Number of redistributors for which the region has room.
    pub count: u32,
}

impl RedistributorRegion {
    /// Creates a region of `count` redistributors at `base`, [`gicr::STRIDE_V3`] apart.
    pub const fn new(base: u64, count: u32) -> Self {
        Self { base, stride: gicr::STRIDE_V3, count }
    }

    /// Creates a region for all redistributors of a machine, at the address that QEMU's `virt`
    /// uses.
    pub(super) fn in_one(cpus: u16) -> Self {
        Self::new(0x080a_0000, cpus.into())
    }

    msi_types::setters! {
        with_base: base: u64,
        with_stride: stride: u64,
        with_count: count: u32,
    }
}

/// Frame of one redistributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RedistributorFrame {
    pub(crate) base: u64,
    /// `GICR_TYPER.Last`.
    pub(crate) last: bool,
}
