//! Errors of the distributor, redistributors and CPU interfaces. Each names the block that failed.

#[cfg(feature = "alloc")]
mod lpi;

#[cfg(feature = "alloc")]
pub use lpi::{AdoptionRefused, LpiError, LpiMessages};

use crate::Block;
use gic_arch::{Affinity, ArchRevision, IntId};
use msi_types::Cpu;

/// Reasons to refuse an operation of the distributor, a redistributor or a CPU interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GicError {
    /// The platform maps nothing at the address that firmware states.
    #[error("{0}: the platform cannot map registers at this address, which firmware states")]
    NotMapped(Block),
    /// Firmware states a frame that is smaller than a GICv3's: it describes an older GIC.
    #[error(
        "{block}: firmware states a frame of {bytes:#x} bytes; a GICv3 has 64 KiB, a GICv2 needs \
         another driver"
    )]
    FrameTooSmall {
        /// The block that the frame belongs to.
        block: Block,
        /// Its size as stated.
        bytes: u64,
    },
    /// Firmware states the distributor of another GIC than the one that is driven.
    #[error("{block} is that of a {found} (GICD_TYPER.IDbits), which needs another driver")]
    OtherVersion {
        /// The block at that address.
        block: Block,
        /// The kind of hardware that answers there.
        found: &'static str,
    },
    /// Firmware states an address at which there is no GIC, or one of another version.
    #[error(
        "{block}: not a GIC of the version that is driven (PIDR2 says {found:?}); firmware may \
         state a wrong address"
    )]
    WrongRevision {
        /// The block at that address.
        block: Block,
        /// The revision that its `PIDR2` shows.
        found: ArchRevision,
    },
    /// The hardware did not do in time what it must do.
    #[error("{block}: timed out waiting for {what}")]
    TimedOut {
        /// The block whose register was polled.
        block: Block,
        /// The state that did not come.
        what: &'static str,
    },
    /// `GICD_CTLR.ARE` stays 0: the GIC runs in GICv2 compatibility, under firmware that keeps it
    /// there.
    #[error("{0}: affinity routing cannot be enabled")]
    NoAffinityRouting(Block),
    /// The caller asks for an interrupt that the block does not have.
    #[error("{block} has no {intid}")]
    NoSuchInterrupt {
        /// The block that lacks the feature.
        block: Block,
        /// The interrupt.
        intid: IntId,
    },
    /// The caller changes a trigger while the interrupt is enabled, which is UNPREDICTABLE.
    #[error("{0} is enabled: its trigger can be changed only while it is disabled")]
    StillEnabled(IntId),
    /// The hardware fixes the trigger.
    #[error("{0}: the hardware fixes its trigger the other way")]
    FixedTrigger(IntId),
    /// The security view has no say over this group, or Secure software keeps the interrupt.
    #[error("{0} cannot be put into that group from this security view")]
    GroupRefused(IntId),
    /// Secure software keeps the interrupt: its registers read as zero here.
    #[error("{0} belongs to Secure software")]
    KeptBySecure(IntId),
    /// The distributor cannot route 1-of-N.
    #[error("{0} does not support 1-of-N routing")]
    NoOneOfN(Block),
    /// Firmware states a stride in which no redistributor fits.
    #[error(
        "redistributor region {base:#x}: the stride {stride:#x} of firmware is no multiple of 64 \
         KiB from 128 KiB on"
    )]
    BadStride {
        /// The region's base address.
        base: u64,
        /// The stride in bytes.
        stride: u64,
    },
    /// Firmware states a region that ends inside a redistributor.
    #[error("redistributor region {base:#x}: it ends inside the redistributor at {at:#x}")]
    RegionTruncated {
        /// The region's base address.
        base: u64,
        /// The redistributor's base address.
        at: u64,
    },
    /// No region holds a redistributor of that affinity.
    #[error("no redistributor region holds a redistributor for affinity {0}")]
    NoRedistributor(Affinity),
    /// The caller names a CPU that the configuration does not have.
    #[error("CPU {0} is not in the configuration of this GIC")]
    UnknownCpu(Cpu),
    /// `GICD_ITARGETSR0` to `7` read as zero on a CPU that is not the only one: a GICv2 that cannot
    /// tell where it is.
    #[error("CPU {0} finds no number of its own at the distributor")]
    NoTarget(Cpu),
    /// The caller gives too little room to save into.
    #[error("{block}: saving takes {wanted} blocks, the caller gives {given}")]
    StorageTooSmall {
        /// The block that was to be saved.
        block: Block,
        /// Blocks of 32 interrupts that it has.
        wanted: usize,
        /// Blocks that the caller gave.
        given: usize,
    },
    /// There is no memory for the driver's own records.
    #[error("{0}: no memory for the driver's records")]
    NoMemory(Block),
    /// A higher exception level keeps `ICC_SRE_EL1.SRE` at 0.
    #[error("CPU interface: a higher exception level does not allow its system registers")]
    NoSystemRegisters,
    /// The caller wants to end and deactivate interrupts separately, which this GICv2 cannot.
    /// Firmware states no room for `GICC_DIR`, or `GICC_CTLR.EOImode` stays 0 (GICv1 has neither).
    #[error("CPU interface: ending and deactivating cannot be split ({0})")]
    NoSplitEnd(&'static str),
    /// An SGI cannot reach that PE.
    #[error("no SGI reaches affinity {0}: {1}")]
    SgiOutOfReach(Affinity, &'static str),
    /// LPIs.
    #[cfg(feature = "alloc")]
    #[error(transparent)]
    Lpi(#[from] LpiError),
}
