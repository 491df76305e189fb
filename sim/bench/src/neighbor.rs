//! Detects whether another hardware thread is active on this core.
//!
//! Several hardware threads (SMT) share the execution units of a core, and on a rented machine, the
//! other threads belong to another tenant. While one of them runs, code that keeps the units busy
//! takes up to twice as long, whereas code that waits for one result after another (e.g. locked
//! operations) hardly slows down. The ratios between times therefore change, although no clock or
//! counter on the rented machine shows the reason.
//!
//! Two loops reveal the activity of another thread. In one loop, every operation depends on the
//! previous operation; in the other, the operations are independent. The quotient of the loops'
//! times doesn't depend on the clock frequency.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Number of runs of the two loops. We use the median, because interrupts may disturb some of them.
const PAIRS: usize = 9;
/// Number of initial readings, which determine the core's own quotient, i.e. the quotient without a
/// neighbor.
const FIRST: usize = 256;
/// We assume a neighbor if the quotient exceeds the core's own by this factor. Without a neighbor,
/// nine out of ten readings are within two percent of the core's own quotient; with a neighbor,
/// readings are 1.1 to 2 times as high as that quotient.
const NOTICEABLE: f64 = 1.05;
const PAUSE: Duration = Duration::from_millis(1);

/// Detector of neighbors, i.e. of other active hardware threads of the core. Sampling waits until
/// no neighbor is active.
pub(crate) struct Neighbor {
    /// The smallest quotient so far. We assume that it was measured without a neighbor.
    alone: f64,
    /// Remaining time that may be spent waiting.
    patience: Duration,
    /// Number of samples taken with an active neighbor.
    suffered: u32,
}

impl Neighbor {
    /// Creates a detector that waits for up to `patience` in total.
    pub(crate) fn new(patience: Duration) -> Self {
        let alone = (0..FIRST).map(|_| quotient()).fold(f64::INFINITY, f64::min);
        Self { alone, patience, suffered: 0 }
    }

    /// Takes a sample once the core has no neighbor, or when the waiting time has run out.
    pub(crate) fn without<E>(&mut self, sample: impl FnMut() -> Result<f64, E>) -> Result<f64, E> {
        self.sample(quotient, sample)
    }

    fn sample<E>(
        &mut self,
        mut quotient: impl FnMut() -> f64,
        mut sample: impl FnMut() -> Result<f64, E>,
    ) -> Result<f64, E> {
        loop {
            let start = Instant::now();
            let before = self.is_there(quotient());
            if before && !self.patience.is_zero() {
                thread::sleep(PAUSE);
                self.patience = self.patience.saturating_sub(start.elapsed());
                continue;
            }
            let taken = sample()?;
            let disturbed = self.is_there(quotient()) || before;
            if !disturbed || self.patience.is_zero() {
                self.suffered += u32::from(disturbed);
                return Ok(taken);
            }
            self.patience = self.patience.saturating_sub(start.elapsed());
        }
    }

    /// Returns the number of samples taken with an active neighbor.
    pub(crate) const fn suffered(&self) -> u32 {
        self.suffered
    }

    fn is_there(&mut self, quotient: f64) -> bool {
        self.alone = self.alone.min(quotient);
        quotient > self.alone * NOTICEABLE
    }
}

/// Returns the median quotient over several runs.
fn quotient() -> f64 {
    let mut all = [0.0; PAIRS];
    for quotient in &mut all {
        let (chain, chains) = (timed(|| chained(2000)), timed(|| independent(1000)));
        *quotient = chains / chain;
    }
    all.sort_unstable_by(f64::total_cmp);
    all[PAIRS / 2]
}

fn timed<R>(run: impl FnOnce() -> R) -> f64 {
    let start = Instant::now();
    black_box(run());
    start.elapsed().as_secs_f64()
}

/// Runs operations, each of which depends on the previous operation.
#[inline(never)]
fn chained(turns: u32) -> u64 {
    (0..turns).fold(black_box(1), |word: u64, _| (word ^ 0x9e37).rotate_left(7).wrapping_mul(5))
}

/// Runs operations in groups of six that are independent of each other.
#[inline(never)]
fn independent(turns: u32) -> [u64; 6] {
    let mut words: [u64; 6] = black_box([1, 2, 3, 4, 5, 6]);
    for _ in 0..turns {
        for (word, salt) in words.iter_mut().zip(77..) {
            *word = (*word ^ salt).rotate_left(7);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Returns the sample taken with these readings, and the detector, for a core whose own
    /// quotient is 1.
    fn sampled(patience: Duration, readings: &[f64]) -> (f64, Neighbor) {
        let mut neighbor = Neighbor { alone: 1.0, patience, suffered: 0 };
        let (mut readings, mut samples) = (readings.iter(), 0.0);
        let taken = neighbor.sample(
            || *readings.next().expect("no more than these readings"),
            || {
                samples += 1.0;
                Ok::<_, Infallible>(samples)
            },
        );
        assert_eq!(readings.len(), 0, "all readings must be used");
        (taken.unwrap(), neighbor)
    }

    #[test]
    fn a_quiet_core_keeps_its_first_sample() {
        let (taken, neighbor) = sampled(Duration::from_secs(1), &[1.04, 1.04]);
        assert!((taken - 1.0).abs() < f64::EPSILON);
        assert_eq!(neighbor.suffered(), 0);
    }

    #[test]
    fn sampling_waits_until_the_neighbor_is_quiet() {
        let (taken, neighbor) = sampled(Duration::from_secs(10), &[1.2, 1.2, 1.0, 1.0]);
        assert!((taken - 1.0).abs() < f64::EPSILON);
        assert_eq!(neighbor.suffered(), 0);
    }

    #[test]
    fn a_sample_disturbed_by_a_neighbor_is_repeated() {
        let (taken, neighbor) = sampled(Duration::from_secs(10), &[1.0, 1.2, 1.0, 1.0]);
        assert!((taken - 2.0).abs() < f64::EPSILON);
        assert_eq!(neighbor.suffered(), 0);
    }

    #[test]
    fn samples_still_disturbed_at_the_time_limit_are_counted() {
        for readings in [[1.2, 1.0], [1.0, 1.2], [1.2, 1.2]] {
            let (taken, neighbor) = sampled(Duration::ZERO, &readings);
            assert!((taken - 1.0).abs() < f64::EPSILON);
            assert_eq!(neighbor.suffered(), 1);
        }
    }

    #[test]
    fn a_faster_reading_lowers_the_undisturbed_baseline() {
        let (_, neighbor) = sampled(Duration::ZERO, &[0.8, 0.8]);
        assert_eq!(neighbor.suffered(), 0);
        assert!((neighbor.alone - 0.8).abs() < f64::EPSILON);
    }
}
