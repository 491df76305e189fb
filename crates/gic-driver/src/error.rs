//! Errors from the distributor, redistributors and CPU interfaces. Most of them name the block at
//! fault.

#[cfg(feature = "alloc")]
mod lpi;

#[cfg(feature = "alloc")]
pub use lpi::{AdoptionRefused, LpiError, LpiMessages};

use core::fmt;
use gic_arch::{Affinity, ArchRevision, IntId};
use msi_types::Cpu;

/// Error from the distributor, a redistributor or a CPU interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GicError {
    /// The platform can't map the address given by firmware.
    #[error("{0}: the platform cannot map its registers; check the firmware description")]
    NotMapped(Block),
    /// Firmware describes a frame that is too small for a GICv3, so the GIC must be older.
    #[error(
        "{block}: firmware states a frame of {bytes:#x} bytes, but a GICv3 has 64 KiB; a GICv2 \
         needs another driver"
    )]
    FrameTooSmall {
        /// The block that the frame belongs to.
        block: Block,
        /// Size given by firmware.
        bytes: u64,
    },
    /// Firmware points to the distributor of a GIC version that this driver does not support.
    #[error("{block} belongs to a {found} (GICD_TYPER.IDbits), which needs another driver")]
    OtherVersion {
        /// The block that firmware places at the address.
        block: Block,
        /// The GIC version that was found at the address.
        found: &'static str,
    },
    /// The block at the address given by firmware is not part of a GIC, or is part of a GIC of
    /// another version.
    #[error(
        "{block}: not a GIC of a version that this driver supports (PIDR2 shows {found:?}); \
         firmware may state a wrong address"
    )]
    WrongRevision {
        /// The block that firmware places at the address.
        block: Block,
        /// Revision reported by `PIDR2`.
        found: ArchRevision,
    },
    /// The hardware did not reach a required state in time.
    #[error("{block}: timed out waiting for {what}")]
    TimedOut {
        /// The block whose register did not reach the required state.
        block: Block,
        /// The awaited state.
        what: &'static str,
    },
    /// `GICD_CTLR.ARE` stays 0, because firmware keeps the GIC in its GICv2 compatibility mode.
    #[error("{0}: affinity routing cannot be enabled; firmware keeps it off")]
    NoAffinityRouting(Block),
    /// The block does not have this interrupt.
    #[error("{block} has no {intid}")]
    NoSuchInterrupt {
        /// The block that lacks the interrupt.
        block: Block,
        /// The interrupt.
        intid: IntId,
    },
    /// The caller tried to change the trigger of an enabled interrupt, which is UNPREDICTABLE.
    #[error("{0} is enabled; disable it before changing its trigger")]
    StillEnabled(IntId),
    /// The trigger is fixed in hardware and differs from the requested one.
    #[error("{0}: the hardware fixes its trigger to the other mode")]
    FixedTrigger(IntId),
    /// This security view can't configure the group, or the interrupt belongs to Secure software.
    #[error("{0} cannot be put into that group from this security view")]
    GroupRefused(IntId),
    /// The interrupt belongs to Secure software; Non-secure reads of its fields return zero.
    #[error("{0} belongs to Secure software")]
    KeptBySecure(IntId),
    /// The distributor does not support 1-of-N routing.
    #[error("{0} does not support 1-of-N routing")]
    NoOneOfN(Block),
    /// Firmware describes a stride that is too small for a redistributor or not a multiple of 64
    /// KiB.
    #[error(
        "redistributor region {base:#x}: firmware states a stride of {stride:#x}, which must be a \
         multiple of 64 KiB and at least 128 KiB"
    )]
    BadStride {
        /// The region's base address.
        base: u64,
        /// The stride in bytes.
        stride: u64,
    },
    /// Firmware describes a region that ends inside a redistributor.
    #[error("redistributor region {base:#x}: the region ends inside the redistributor at {at:#x}")]
    RegionTruncated {
        /// The region's base address.
        base: u64,
        /// The redistributor's base address.
        at: u64,
    },
    /// No region contains a redistributor with this affinity.
    #[error("no redistributor region contains a redistributor for affinity {0}")]
    NoRedistributor(Affinity),
    /// The CPU is not part of the configuration.
    #[error("CPU {0} is not in this GIC's configuration")]
    UnknownCpu(Cpu),
    /// `cpu_on` has not been called on the CPU, or `cpu_off` has been called since.
    #[error("CPU {0} is off: call `cpu_on` on it")]
    CpuOff(Cpu),
    /// `GICD_ITARGETSR0` to `7` of a GICv2 read as zero on one of several CPUs, so that CPU can't
    /// determine its CPU interface number.
    #[error("CPU {0} finds no CPU interface number: GICD_ITARGETSR0 to 7 read as zero")]
    NoTarget(Cpu),
    /// The caller's storage is too small for the saved state.
    #[error("{block}: saving needs {wanted} blocks, but the caller provides {given}")]
    StorageTooSmall {
        /// The block whose state was to be saved.
        block: Block,
        /// Number of blocks of 32 interrupts that must be saved.
        wanted: usize,
        /// Number of blocks that the caller provided.
        given: usize,
    },
    /// Memory for the driver's records could not be allocated.
    #[error("{0}: out of memory for the driver's records")]
    NoMemory(Block),
    /// A higher exception level keeps `ICC_SRE_EL1.SRE` or `ICC_SRE_EL2.SRE` at 0.
    #[error("CPU interface: a higher exception level denies access to the system registers")]
    NoSystemRegisters,
    /// This GICv2 can't split EOI and deactivation: the frame described by firmware does not
    /// include `GICC_DIR`, or `GICC_CTLR.EOImode` stays 0 (a GICv1 has neither).
    #[error("CPU interface: EOI and deactivation cannot be split ({0})")]
    NoSplitEnd(&'static str),
    /// SGIs can't reach the PE with this affinity.
    #[error("an SGI cannot reach affinity {0}: {1}")]
    SgiOutOfReach(Affinity, &'static str),
    /// Error from LPIs or their tables.
    #[cfg(feature = "alloc")]
    #[error(transparent)]
    Lpi(#[from] LpiError),
}

/// The part of the GIC that an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Block {
    /// The distributor at this physical address.
    Distributor(u64),
    /// The redistributor with RD_base at this physical address.
    Redistributor(u64),
    /// The calling CPU's interface.
    CpuInterface,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distributor(base) => write!(f, "distributor@{base:x}"),
            Self::Redistributor(base) => write!(f, "redistributor@{base:x}"),
            Self::CpuInterface => f.write_str("CPU interface"),
        }
    }
}
