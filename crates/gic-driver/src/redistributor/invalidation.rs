//! `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR`: the invalidations of one redistributor, one at
//! a time.
//!
//! A write of `GICR_INVLPIR` or `GICR_INVALLR` while `GICR_SYNCR.Busy` is 1 is CONSTRAINED
//! UNPREDICTABLE (IHI 0069, `GICR_INVLPIR`): the redistributor may ignore it. An invalidation takes
//! these steps, on any CPU and in any context:
//!
//! 1. Under the lock, it reads `Busy`. If that is 0, every invalidation written so far is complete,
//!    and it writes its own.
//! 2. Without the lock, it goes back to 1 until its own is complete.
//!
//! Interrupts are masked in step 1 alone, so that a handler which interrupts a waiter can
//! invalidate too.

use super::Redistributor;
use super::invalidation_progress::{Invalidations, Progress};
use crate::{Mmio, MmioExt, Platform, TimedOut, wait_until};
use core::iter::Peekable;
use gic_arch::{Lpi, gicr};

const WAIT: &str = "SYNCR.Busy = 0";

/// The configurations that a redistributor reads again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalidation {
    /// One LPI's (`GICR_INVLPIR`).
    One(Lpi),
    /// All LPIs' (`GICR_INVALLR`).
    All,
}

impl<M: Mmio> Redistributor<M> {
    /// Returns true if LPIs are invalidated by this redistributor's registers, with or without an
    /// ITS (IHI 0069 §12.11: `GICR_TYPER.DirectLPI`, `GICR_CTLR.IR`). Otherwise what is at their
    /// offsets must not be accessed.
    pub(crate) fn can_invalidate(&self) -> bool {
        self.typer.direct_lpi() || self.frame.mmio.read(gicr::CTLR).ir()
    }

    /// Writes each of `wanted`, and waits until the last one is complete. The redistributor [can
    /// do that](Self::can_invalidate) and is awake.
    ///
    /// Context: any.
    ///
    /// One bound of the platform's clock covers all of them, with the waits for other CPUs. At a
    /// redistributor that outlasted a wait before, it fails at once unless `Busy` is 0 again.
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
            // Other CPUs' invalidations that completed meanwhile show that it works.
            progress.with(platform, |progress| progress.stuck = progress.complete == before);
        })
    }

    /// Reads `Busy`; `true` if it is 0.
    fn is_idle(&self, progress: &mut Progress) -> bool {
        let idle = !self.frame.mmio.read(gicr::SYNCR).busy();
        if idle {
            progress.complete = progress.written;
            progress.stuck = false;
        }
        idle
    }

    /// Begins to read configurations again. `Busy` is 0.
    fn begin_invalidation(&self, what: Invalidation) {
        match what {
            // The fields beside `pINTID` are zero for physical LPIs.
            Invalidation::One(lpi) => self.frame.mmio.write(gicr::INVLPIR, lpi.get().into()),
            Invalidation::All => self.frame.mmio.write(gicr::INVALLR, 0),
        }
    }
}

/// One caller's invalidations.
struct InvalidationRun<I: Iterator<Item = Invalidation>> {
    wanted: Peekable<I>,
    /// The number of the last one that it wrote.
    own: u64,
}

impl<I: Iterator<Item = Invalidation>> InvalidationRun<I> {
    /// Goes on as far as possible without waiting; `true` if all are complete.
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
