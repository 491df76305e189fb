//! `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR`: serialized invalidations at one redistributor.
//!
//! A write of `GICR_INVLPIR` or `GICR_INVALLR` while `GICR_SYNCR.Busy` is 1 is CONSTRAINED
//! UNPREDICTABLE (IHI 0069, `GICR_INVLPIR`): the redistributor may ignore it. The driver therefore
//! invalidates in the following steps, on any CPU and in any context:
//!
//! 1. Take the lock and read `Busy`. If it is 0, every invalidation written so far is complete, so
//!    write the caller's next invalidation.
//! 2. Release the lock, and repeat step 1 until the caller's last invalidation is complete.
//!
//! Interrupts are only masked during step 1, so a handler that interrupts a waiter can invalidate
//! too.

use super::{Invalidations, Progress, Redistributor};
use crate::{Mmio, MmioExt, Platform, TimedOut, wait_until};
use core::iter::Peekable;
use gic_arch::{Lpi, gicr};

const WAIT: &str = "SYNCR.Busy = 0";

/// Scope of an invalidation, i.e. the configurations that the redistributor must reread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalidation {
    /// The configuration of one LPI (`GICR_INVLPIR`).
    One(Lpi),
    /// The configurations of all LPIs (`GICR_INVALLR`).
    All,
}

impl<M: Mmio> Redistributor<M> {
    /// Returns `true` if the redistributor has registers that invalidate LPIs, with or without an
    /// ITS (IHI 0069 §12.11: `GICR_TYPER.DirectLPI`, `GICR_CTLR.IR`). If the registers don't exist,
    /// their offsets must not be accessed.
    pub(crate) fn can_invalidate(&self) -> bool {
        self.typer.direct_lpi() || self.frame.mmio.read(gicr::CTLR).ir()
    }

    /// Executes the invalidations in `wanted` and waits until the last one is complete. The
    /// redistributor must be awake, and must [support invalidations](Self::can_invalidate).
    ///
    /// Context: any.
    ///
    /// One bound from the platform's clock covers all invalidations, including waits for those of
    /// other CPUs. If an earlier wait for this redistributor timed out, the call fails immediately
    /// unless `Busy` is 0 again.
    pub(crate) fn invalidate<P: Platform>(
        &self,
        platform: &P,
        wanted: impl Iterator<Item = Invalidation>,
    ) -> Result<(), TimedOut> {
        let Invalidations(progress) = &self.invalidations;
        let mut run = InvalidationRun { wanted: wanted.peekable(), own: 0 };
        let mut stuck = false;
        let before = progress.with(platform, |progress| progress.complete);
        let result = wait_until(platform, WAIT, || {
            progress.with(platform, |progress| {
                let done = run.step(progress, self);
                stuck = !done && progress.stuck;
                done || stuck
            })
        });
        if stuck {
            return Err(TimedOut(WAIT));
        }
        result.inspect_err(|_| {
            // If invalidations of other CPUs completed during this wait, the redistributor still
            // works.
            progress.with(platform, |progress| progress.stuck = progress.complete == before);
        })
    }

    /// Reads `Busy` and updates `progress`. Returns `true` if `Busy` is 0.
    fn is_idle(&self, progress: &mut Progress) -> bool {
        let idle = !self.frame.mmio.read(gicr::SYNCR).busy();
        if idle {
            progress.complete = progress.written;
            progress.stuck = false;
        }
        idle
    }

    /// Begins an invalidation. `Busy` must be 0.
    fn begin_invalidation(&self, what: Invalidation) {
        match what {
            // For physical LPIs, all fields except `pINTID` are zero.
            Invalidation::One(lpi) => self.frame.mmio.write(gicr::INVLPIR, lpi.get().into()),
            Invalidation::All => self.frame.mmio.write(gicr::INVALLR, 0),
        }
    }
}

/// One caller's invalidations.
struct InvalidationRun<I: Iterator<Item = Invalidation>> {
    wanted: Peekable<I>,
    /// Sequence number of the last invalidation that the caller wrote.
    own: u64,
}

impl<I: Iterator<Item = Invalidation>> InvalidationRun<I> {
    /// Writes as many of the remaining invalidations as possible without waiting. Returns `true` if
    /// all invalidations are complete.
    fn step<M: Mmio>(&mut self, progress: &mut Progress, redistributor: &Redistributor<M>) -> bool {
        while redistributor.is_idle(progress) {
            let Some(next) = self.wanted.next() else { return true };
            redistributor.begin_invalidation(next);
            progress.written += 1;
            self.own = progress.written;
        }
        self.wanted.peek().is_none() && self.own <= progress.complete
    }
}
