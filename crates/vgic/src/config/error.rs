//! Errors of configurations.

use super::MAX_CPUS;
use super::its::ItsConfigError;
use super::v2m::V2mConfigError;
use alloc::collections::TryReserveError;
use doorbell_fallible::OutOfMemory;
use gic_arch::{Affinity, IntId};

/// A [`VgicConfig`](crate::VgicConfig) describes no possible GIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No vCPU, or more than [`MAX_CPUS`].
    #[error("the machine has {0} vCPUs: a virtual GIC serves 1 to {MAX_CPUS}")]
    CpuCount(usize),
    /// Two vCPUs have the same affinity.
    #[error("two vCPUs have the affinity {0}")]
    DuplicateAffinity(Affinity),
    /// Two vCPUs have the same processor number.
    #[error("two vCPUs have the processor number {0}")]
    DuplicateProcessorNumber(u16),
    /// The regions have no room for all redistributors.
    #[error("{cpus} vCPUs need as many redistributors, the regions have room for {room}")]
    TooFewRedistributors {
        /// vCPUs.
        cpus: usize,
        /// Frames in all regions.
        room: u64,
    },
    /// A frame is not aligned to 64 KiB.
    #[error("the frame at {0:#x} is not aligned to 64 KiB")]
    Misaligned(u64),
    /// A stride is no multiple of 64 KiB or too small.
    #[error("redistributors cannot be {0:#x} bytes apart: a multiple of 64 KiB from 128 KiB on")]
    Stride(u64),
    /// A block reaches past 52 bits.
    #[error("the block at {0:#x} does not fit into 52 address bits")]
    AddressSpace(u64),
    /// Two blocks overlap.
    #[error("the blocks at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// One block's base.
        first: u64,
        /// The other's.
        second: u64,
    },
    /// The number of SPIs.
    #[error("{0} SPIs: the architecture has multiples of 32 up to 960, or 988")]
    SpiCount(u32),
    /// The number of extended SPIs.
    #[error("{0} extended SPIs: the architecture has multiples of 32 up to 1024")]
    ExtendedSpiCount(u32),
    /// The number of extended PPIs.
    #[error("{0} extended PPIs: the architecture has 0, 32 or 64")]
    ExtendedPpiCount(u32),
    /// The number of priority bits.
    #[error("{0} priority bits: 4 to 8 with one security state, 5 to 8 with two")]
    PriorityBits(u8),
    /// The number of INTID bits.
    #[error("{0} INTID bits: LPIs need 14 to 20")]
    LpiIdBits(u8),
    /// No work is done.
    #[error("redistributors that do no work at an access never get done")]
    NoLpiWork,
    /// Direct LPIs without LPIs.
    #[error("direct LPIs on a machine without LPIs: set lpi_id_bits")]
    DirectLpiWithoutLpis,
    /// Direct LPIs beside an ITS: `GICR_SETLPIR` is IMPLEMENTATION DEFINED then.
    #[error("direct LPIs beside the ITS at {its:#x}: a GIC with an ITS does not have them")]
    DirectLpiBesideIts {
        /// The first ITS.
        its: u64,
    },
    /// Direct LPIs beside message-based SPIs: two doorbells for devices that could not choose.
    #[error(
        "direct LPIs beside message-based SPIs (message_based_spis): devices could not choose the \
         doorbell"
    )]
    DirectLpiBesideMbi,
    /// An alias of doorbells that do not exist.
    #[error(
        "a frame for message-based SPIs at {0:#x}, but the machine has none: set message_based_spis"
    )]
    MbiAlias(u64),
    /// A GICv2m frame that cannot be.
    #[error(transparent)]
    V2m(#[from] V2mConfigError),
    /// An ITS that cannot be.
    #[error(transparent)]
    Its(#[from] ItsConfigError),
    /// An ITS without LPIs.
    #[error("the ITS at {0:#x} has no LPIs to deliver: set lpi_id_bits")]
    ItsWithoutLpis(u64),
    /// The heap has no memory for such a GIC, or for the configuration.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// An interrupt that cannot be Secure.
    #[error("{0} cannot be a Secure interrupt of this machine")]
    SecureInterrupt(IntId),
}

impl From<TryReserveError> for ConfigError {
    fn from(error: TryReserveError) -> Self {
        OutOfMemory::from(error).into()
    }
}
