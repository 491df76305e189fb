//! An ITS's mapped frames, and bounded waits for its command queue. A task waits for as long as the
//! ITS makes progress; callers in other contexts wait no longer than the platform's bound in total.

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

    /// Disables the ITS and waits until it is quiescent. The ITS's tables must not be changed until
    /// the ITS is quiescent.
    pub(crate) fn quiesce(&self) -> Result<(), TimedOut> {
        let control = self.registers.read(gits::CTLR);
        // The Quiescent bit is UNKNOWN while the ITS is enabled, so disable the ITS first.
        if control.enabled() {
            self.registers.write(gits::CTLR, control.with_enabled(false));
        }
        wait_until(&*self.platform, "GITS_CTLR.Quiescent", || {
            self.registers.read(gits::CTLR).quiescent()
        })
    }

    /// Enables the ITS, which then accepts messages and commands.
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

/// Context in which a caller waits for the command queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// A task, which waits as long as the ITS makes progress, because another caller's batch may be
    /// long. If the ITS makes no progress for the platform's bound, it is considered unresponsive.
    Task,
    /// A caller in an arbitrary context, including interrupt handlers, which waits no longer than
    /// the platform's bound in total. This bound may be too short for all commands in the queue, so
    /// a timeout doesn't affect other callers.
    Any,
}

/// State of one caller's wait, across all chunks of its commands.
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

    /// Decides whether to keep waiting after a poll that found the caller's commands incomplete.
    /// `read` is the number of consumed commands, and `unresponsive_at` is the ring's field of the
    /// same name.
    pub(crate) fn after(&mut self, read: u64, unresponsive_at: &mut Option<u64>) -> Wait {
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
