//! The mapped frames of an ITS, and bounded waits for its command queue. A task waits while the ITS
//! makes progress; other contexts wait for a single bound.

use super::error::ProbeError;
use crate::mmio::MmioExt;
use crate::platform::{GicPlatform, PhysicalRegion, TimedOut, Wait, wait_until};
use alloc::sync::Arc;
use core::fmt;
use gic_arch::{ArchRevision, gits, id};

/// Both frames of an ITS, and the platform.
pub(crate) struct ControlFrame<P: GicPlatform> {
    pub(crate) platform: Arc<P>,
    pub(crate) registers: P::Mmio,
    /// Physical address.
    pub(crate) base: u64,
}

impl<P: GicPlatform> ControlFrame<P> {
    /// Maps the frames and checks that they belong to an ITS.
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

    /// Disables the ITS and waits until it is quiescent. Its tables must not be changed before
    /// that.
    pub(crate) fn quiesce(&self) -> Result<(), TimedOut> {
        let control = self.registers.read(gits::CTLR);
        // Quiescent is UNKNOWN while the ITS is enabled, so the ITS must be disabled first.
        if control.enabled() {
            self.registers.write(gits::CTLR, control.with_enabled(false));
        }
        wait_until(&*self.platform, "GITS_CTLR.Quiescent", || {
            self.registers.read(gits::CTLR).quiescent()
        })
    }

    /// Enables the ITS, so that it accepts messages and commands.
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

/// The context of a waiting caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// A task waits as long as the ITS makes progress, because another caller's long batch is not a
    /// fault. If the ITS makes no progress for the platform's bound, it is unresponsive.
    Task,
    /// In any context, including handlers, a caller waits for the platform's bound in total. This
    /// may be too short for the queued commands, so a timeout has no consequences for other
    /// callers.
    Any,
}

/// One caller's wait, over all chunks of its commands.
#[derive(Debug)]
pub(crate) struct QueueWait {
    context: Context,
    turn: u32,
    /// Commands consumed at the last poll.
    last_read: Option<u64>,
    wait: Wait,
}

impl QueueWait {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, turn: 0, last_read: None, wait: Wait::Again }
    }

    /// Decides whether to continue after a poll that did not complete the caller's commands. `read`
    /// is the number of consumed commands. `unresponsive_at` is the ring's field: the value of
    /// `read` at which a task timed out.
    pub(crate) fn judge(&mut self, read: u64, unresponsive_at: &mut Option<u64>) -> Wait {
        if *unresponsive_at == Some(read) {
            return Wait::GiveUp;
        }
        if self.context == Context::Task && self.last_read.replace(read) != Some(read) {
            (self.turn, self.wait) = (0, Wait::Again);
        }
        if self.wait == Wait::Again {
            return Wait::Again;
        }
        if self.context == Context::Task {
            *unresponsive_at = Some(read);
        }
        Wait::GiveUp
    }

    pub(crate) fn pause<P: GicPlatform>(&mut self, platform: &P) {
        self.wait = platform.wait(self.turn);
        self.turn = self.turn.saturating_add(1);
    }
}
