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

use crate::{Mmio, MmioExt, Platform, TimedOut, wait_until};
use core::iter::Peekable;
use doorbell_fallible::lock::IrqLock;
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

/// A redistributor's invalidations.
#[derive(Debug, Default)]
pub(super) struct Invalidations(IrqLock<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Number of invalidations written.
    written: u64,
    /// Number of completed invalidations, i.e. invalidations that were written before `Busy` was
    /// last read as 0.
    complete: u64,
    /// Set if a wait for an invalidation timed out and `Busy` has been 1 ever since.
    stuck: bool,
}

impl Invalidations {
    /// Implements [`Redistributor::invalidate`](super::Redistributor::invalidate).
    ///
    /// Context: any.
    ///
    /// One bound from the platform's clock covers all invalidations, including waits for those of
    /// other CPUs. If an earlier wait for this redistributor timed out, the call fails immediately
    /// unless `Busy` is 0 again.
    pub(super) fn run<P: Platform>(
        &self,
        platform: &P,
        mmio: &impl Mmio,
        wanted: impl Iterator<Item = Invalidation>,
    ) -> Result<(), TimedOut> {
        let Self(progress) = self;
        let mut run = InvalidationRun { wanted: wanted.peekable(), own: 0 };
        let mut stuck = false;
        let before = progress.with(platform, |progress| progress.complete);
        let result = wait_until(platform, WAIT, || {
            progress.with(platform, |progress| {
                let done = run.step(progress, mmio);
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
}

impl Progress {
    /// Reads `Busy` and updates the progress. Returns `true` if `Busy` is 0.
    fn is_idle(&mut self, mmio: &impl Mmio) -> bool {
        let idle = !mmio.read(gicr::SYNCR).busy();
        if idle {
            self.complete = self.written;
            self.stuck = false;
        }
        idle
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
    fn step(&mut self, progress: &mut Progress, mmio: &impl Mmio) -> bool {
        while progress.is_idle(mmio) {
            let Some(next) = self.wanted.next() else { return true };
            match next {
                // For physical LPIs, all fields except `pINTID` are zero.
                Invalidation::One(lpi) => mmio.write(gicr::INVLPIR, lpi.get().into()),
                Invalidation::All => mmio.write(gicr::INVALLR, 0),
            }
            progress.written += 1;
            self.own = progress.written;
        }
        self.wanted.peek().is_none() && self.own <= progress.complete
    }
}
