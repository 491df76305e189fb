//! The ITS's control frame, mapped.

use super::error::ProbeError;
use crate::mmio::MmioExt;
use crate::platform::{GicPlatform, PhysicalRegion, TimedOut, wait_until};
use alloc::sync::Arc;
use core::fmt;
use gic_arch::{ArchRevision, gits, id};

/// Both frames of an ITS, with the platform under them.
pub(crate) struct ControlFrame<P: GicPlatform> {
    pub(crate) platform: Arc<P>,
    pub(crate) registers: P::Mmio,
    /// Physical address.
    pub(crate) base: u64,
}

impl<P: GicPlatform> ControlFrame<P> {
    /// Maps the frames and makes sure that they are an ITS's.
    pub(crate) fn map(platform: Arc<P>, base: u64) -> Result<Self, ProbeError> {
        let region = PhysicalRegion { base, bytes: gits::SIZE };
        let registers = platform.map(region).ok_or(ProbeError::Unmappable(base))?;
        match registers.read(id::PIDR2).revision() {
            ArchRevision::V3 | ArchRevision::V4 => Ok(Self { platform, registers, base }),
            ArchRevision::V1 | ArchRevision::V2 | ArchRevision::Unknown(_) => {
                Err(ProbeError::NotAnIts(base))
            }
        }
    }

    /// Disables the ITS and waits until all effects are done: only then may its tables change.
    pub(crate) fn quiesce(&self) -> Result<(), TimedOut> {
        let control = self.registers.read(gits::CTLR);
        // Quiescent is unknown while the ITS is enabled, so that the register is written first.
        if control.enabled() {
            self.registers.write(gits::CTLR, control.with_enabled(false));
        }
        wait_until(&*self.platform, "GITS_CTLR.Quiescent", || {
            self.registers.read(gits::CTLR).quiescent()
        })
    }

    /// Lets the ITS take messages and commands.
    pub(crate) fn enable(&self) {
        let control = self.registers.read(gits::CTLR);
        self.registers.write(gits::CTLR, control.with_enabled(true));
    }
}

impl<P: GicPlatform> fmt::Debug for ControlFrame<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its@{:x}", self.base)
    }
}
