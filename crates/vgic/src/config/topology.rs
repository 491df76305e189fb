//! The vCPUs of a machine, and the regions of their redistributors.

use gic_arch::{Affinity, gicr};

/// A vCPU of a [`VgicConfig`](super::VgicConfig). Later versions may add fields, whose values from
/// [`new`](Self::new) keep the behaviour of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuConfig {
    /// The affinity in its `MPIDR_EL1`. Unique, sparse.
    pub affinity: Affinity,
    /// `GICR_TYPER.Processor_Number`: how ITS commands name it. Unique.
    pub processor_number: u16,
}

impl CpuConfig {
    /// The vCPU with this affinity and processor number.
    pub const fn new(affinity: Affinity, processor_number: u16) -> Self {
        Self { affinity, processor_number }
    }

    /// The vCPU `index` of a machine like QEMU's `virt`: Aff0 counts to 16, Aff1 counts clusters,
    /// Aff2 continues.
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

/// Consecutive redistributors. Later versions may add fields, whose values from
/// [`new`](Self::new) keep the behaviour of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RedistributorRegion {
    /// Guest physical address of the first one's RD_base, 64 KiB aligned.
    pub base: u64,
    /// Distance from one to the next: a multiple of 64 KiB, at least [`gicr::STRIDE_V3`]. Guests
    /// that firmware tells no stride take exactly this.
    pub stride: u64,
    /// For how many there is room.
    pub count: u32,
}

impl RedistributorRegion {
    /// So many redistributors from this address on, [`gicr::STRIDE_V3`] apart.
    pub const fn new(base: u64, count: u32) -> Self {
        Self { base, stride: gicr::STRIDE_V3, count }
    }

    /// All redistributors of a machine, where QEMU's `virt` has them.
    pub(super) fn in_one(cpus: u16) -> Self {
        Self::new(0x080a_0000, cpus.into())
    }

    msi_types::setters! {
        with_base: base: u64,
        with_stride: stride: u64,
        with_count: count: u32,
    }
}

/// A redistributor's frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RedistributorFrame {
    pub(crate) base: u64,
    /// `GICR_TYPER.Last`.
    pub(crate) last: bool,
}
