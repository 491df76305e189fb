//! The invalidations of one redistributor, one at a time.
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

use super::registers::{DirectLpiRegisters, Invalidation};
use crate::{GicPlatform, Mmio, TimedOut, wait_until};
use core::iter::Peekable;
use doorbell_lock::IrqLock;

const WAIT: &str = "SYNCR.Busy = 0";

/// The invalidations of one redistributor.
#[derive(Debug, Default)]
pub(super) struct Invalidations(IrqLock<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// The number of invalidations written.
    written: u64,
    /// The number of these that are complete: all written before `Busy` was last read as 0.
    complete: u64,
    /// One of them outlasted a whole wait, and `Busy` has been 1 since.
    stuck: bool,
}

impl Invalidations {
    /// Writes each of `wanted`, and waits until the last one is complete.
    ///
    /// Context: any.
    ///
    /// One bound of the platform's clock covers all of them, with the waits for other CPUs. At a
    /// redistributor that outlasted a wait before, it fails at once unless `Busy` is 0 again.
    pub(super) fn run<P: GicPlatform, M: Mmio>(
        &self,
        platform: &P,
        registers: &DirectLpiRegisters<'_, M>,
        wanted: impl Iterator<Item = Invalidation>,
    ) -> Result<(), TimedOut> {
        let mut run = InvalidationRun { wanted: wanted.peekable(), own: 0 };
        let mut stuck = false;
        let before = self.0.with(platform, |progress| progress.complete);
        let result = wait_until(platform, WAIT, || {
            self.0.with(platform, |progress| {
                let done = run.step(progress, registers);
                stuck = !done && progress.stuck;
                done || stuck
            })
        });
        if stuck {
            return Err(TimedOut(WAIT));
        }
        result.inspect_err(|_| {
            // Other CPUs' invalidations that completed meanwhile show that it works.
            self.0.with(platform, |progress| progress.stuck = progress.complete == before);
        })
    }
}

impl Progress {
    /// Reads `Busy`; `true` if it is 0.
    fn look<M: Mmio>(&mut self, registers: &DirectLpiRegisters<'_, M>) -> bool {
        let idle = !registers.is_busy();
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
    /// The number of the last one that it wrote.
    own: u64,
}

impl<I: Iterator<Item = Invalidation>> InvalidationRun<I> {
    /// Goes on as far as possible without waiting; `true` if all are complete.
    fn step<M: Mmio>(
        &mut self,
        progress: &mut Progress,
        registers: &DirectLpiRegisters<'_, M>,
    ) -> bool {
        while progress.look(registers) {
            let Some(next) = self.wanted.next() else { return true };
            registers.invalidate(next);
            progress.written += 1;
            self.own = progress.written;
        }
        self.wanted.peek().is_none() && self.own <= progress.complete
    }
}
