//! Counts the runs of an interrupt's handler.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use msi_types::Cpu;

/// Memory layout of per-CPU counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// Adjacent counters, because only one CPU counts at a time.
    Dense,
    /// Counters on separate cache lines, because all CPUs may count concurrently.
    OwnLines,
}

/// Number of runs on each CPU. Each counter is written only by its own CPU, and the handler cell
/// excludes concurrent runs there, so we don't need atomic additions.
#[derive(Debug)]
pub(crate) struct Counts {
    cells: Vec<AtomicU64>,
    shift: u32,
}

impl Counts {
    pub(crate) fn new(cpus: usize, spacing: Spacing) -> Result<Self, TryReserveError> {
        let shift = if spacing == Spacing::OwnLines { 3 } else { 0 };
        Ok(Self { cells: try_collect((0..cpus << shift).map(|_| AtomicU64::new(0)))?, shift })
    }

    #[inline]
    pub(crate) fn count(&self, cpu: Cpu) {
        // Ordering: every handler run executes this, so it must be cheap. Each counter has a single
        // writer, and no other memory access depends on it.
        if let Some(cell) = self.cells.get(cpu.index() << self.shift) {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Returns the number of runs for each CPU.
    pub(crate) fn per_cpu(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().step_by(1 << self.shift).map(|cell| cell.load(Ordering::SeqCst))
    }
}

/// Window size, in runs. An interrupt is spurious if more than [`MOST_UNHANDLED`] runs in a window
/// find nothing to do. Linux uses the same limit, 99 900 of 100 000 (kernel/irq/spurious.c).
const WINDOW: u64 = 100_000;
const MOST_UNHANDLED: u64 = 99_900;

/// Number of runs that found nothing to do. The handler cell excludes concurrent writers, so we
/// don't need atomic additions. For private interrupts, several CPUs may write concurrently and the
/// number is approximate.
#[derive(Debug, Default)]
pub(crate) struct UnhandledRuns {
    total: AtomicU64,
    /// Number of runs that found nothing to do in the current window.
    recent: AtomicU64,
    /// Total number of runs at the beginning of the window.
    start: AtomicU64,
}

impl UnhandledRuns {
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Counts a run that found nothing to do. Returns `true` if the interrupt is spurious.
    pub(crate) fn count(&self, counts: &Counts) -> bool {
        // Ordering: on a shared line, many runs find nothing to do, so this must be cheap. The
        // counters have a single writer, and no other memory access depends on them.
        self.total.store(self.total() + 1, Ordering::Relaxed);
        let recent = self.recent.load(Ordering::Relaxed) + 1;
        self.recent.store(recent, Ordering::Relaxed);
        if recent <= MOST_UNHANDLED {
            return false;
        }
        let runs: u64 = counts.per_cpu().sum();
        let in_window = runs.saturating_sub(self.start.swap(runs, Ordering::SeqCst)) <= WINDOW;
        self.recent.store(0, Ordering::SeqCst);
        in_window
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_per_cpu_with_either_spacing() {
        for spacing in [Spacing::Dense, Spacing::OwnLines] {
            let counts = Counts::new(3, spacing).unwrap();
            for cpu in [0, 2, 2] {
                counts.count(Cpu::new(cpu));
            }
            assert_eq!(counts.per_cpu().collect::<Vec<_>>(), [1, 0, 2]);
        }
    }
}
