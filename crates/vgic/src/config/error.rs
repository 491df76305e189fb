//! Errors for configurations that the model refuses.

use super::MAX_CPUS;
use super::its::ItsConfigError;
use super::v2m::V2mConfigError;
use alloc::collections::TryReserveError;
use doorbell_fallible::OutOfMemory;
use gic_arch::{Affinity, IntId};

/// Error for a [`VgicConfig`](crate::VgicConfig) that no GIC could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The machine has no vCPU, or more than [`MAX_CPUS`].
    #[error("the machine has {0} vCPUs: a virtual GIC serves 1 to {MAX_CPUS}")]
    CpuCount(usize),
    /// Two vCPUs have the same affinity.
    #[error("two vCPUs have the affinity {0}")]
    DuplicateAffinity(Affinity),
    /// Two vCPUs have the same processor number.
    #[error("two vCPUs have the processor number {0}")]
    DuplicateProcessorNumber(u16),
    /// The regions don't have a redistributor frame for every vCPU.
    #[error("{cpus} vCPUs need as many redistributors, but the regions only have room for {room}")]
    TooFewRedistributors {
        /// Number of vCPUs.
        cpus: usize,
        /// Number of frames in all regions together.
        room: u64,
    },
    /// A frame is not aligned to 64 KiB.
    #[error("the frame at {0:#x} is not aligned to 64 KiB")]
    Misaligned(u64),
    /// A stride is not a multiple of 64 KiB, or is out of range.
    #[error("the redistributor stride {0:#x} must be a multiple of 64 KiB, and at least 128 KiB")]
    Stride(u64),
    /// A block extends beyond 52 address bits.
    #[error("the block at {0:#x} does not fit into 52 address bits")]
    AddressSpace(u64),
    /// Two blocks overlap.
    #[error("the blocks at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// Base of one block.
        first: u64,
        /// Base of the other block.
        second: u64,
    },
    /// The number of SPIs is invalid.
    #[error("{0} SPIs: the architecture allows multiples of 32 up to 960, or 988")]
    SpiCount(u32),
    /// The number of extended SPIs is invalid.
    #[error("{0} extended SPIs: the architecture allows multiples of 32 up to 1024")]
    ExtendedSpiCount(u32),
    /// The number of extended PPIs is invalid.
    #[error("{0} extended PPIs: the architecture allows 0, 32 or 64")]
    ExtendedPpiCount(u32),
    /// The number of priority bits is invalid.
    #[error("{0} priority bits: a GIC has 4 to 8 with one security state, 5 to 8 with two")]
    PriorityBits(u8),
    /// The number of INTID bits is invalid.
    #[error("{0} INTID bits: LPIs need 14 to 20")]
    LpiIdBits(u8),
    /// `lpi_work_per_access` is zero.
    #[error("redistributors must do some work at each access: set lpi_work_per_access")]
    NoLpiWork,
    /// Direct LPIs are configured on a machine without LPIs.
    #[error("direct LPIs on a machine without LPIs: set lpi_id_bits")]
    DirectLpiWithoutLpis,
    /// Direct LPIs are combined with an ITS. `GICR_SETLPIR` would be IMPLEMENTATION DEFINED in that
    /// case.
    #[error("direct LPIs cannot be combined with the ITS at {its:#x}")]
    DirectLpiBesideIts {
        /// Base of the first ITS.
        its: u64,
    },
    /// Direct LPIs are combined with message-based SPIs. Devices would not know which of the two
    /// doorbells to use.
    #[error(
        "direct LPIs cannot be combined with message-based SPIs (message_based_spis): devices \
         could not choose the doorbell"
    )]
    DirectLpiBesideMbi,
    /// An alias frame is configured, but message-based SPIs are not.
    #[error(
        "a frame for message-based SPIs at {0:#x}, but the machine has none: set message_based_spis"
    )]
    MbiAlias(u64),
    /// A GICv2m frame is invalid.
    #[error(transparent)]
    V2m(#[from] V2mConfigError),
    /// An ITS is invalid.
    #[error(transparent)]
    Its(#[from] ItsConfigError),
    /// An ITS is configured on a machine without LPIs.
    #[error("the ITS at {0:#x} has no LPIs to deliver: set lpi_id_bits")]
    ItsWithoutLpis(u64),
    /// The heap does not have enough memory for the GIC or its configuration.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// An interrupt that cannot be Secure is configured as Secure.
    #[error("{0} cannot be a Secure interrupt of this machine")]
    SecureInterrupt(IntId),
}

impl From<TryReserveError> for ConfigError {
    fn from(error: TryReserveError) -> Self {
        OutOfMemory::from(error).into()
    }
}
