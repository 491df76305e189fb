//! Hang guards. No verdict depends on the speed of this machine: a limit only ends what would not
//! end by itself.
//!
//! Limits are stated for an idle machine, far above the time that the work takes there. They are
//! multiplied by the slowness of this machine, which is measured once per process: a busy machine
//! gets more time.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Limit of an answer that takes less than a second.
pub const ANSWER: Duration = Duration::from_mins(1);
/// Limit of a program that runs for at most a minute.
pub const RUN: Duration = Duration::from_mins(10);
/// Limit of a case. The first case fetches packages and builds programs, and others wait for it.
pub const CASE: Duration = Duration::from_mins(40);
/// Limit of work that takes hours.
pub const LONG: Duration = Duration::from_hours(24);

/// Steps of the calibration, and the time that they take, not optimized, on the machine for which
/// limits are stated.
const STEPS: u64 = 5_000_000;
const REFERENCE: Duration = Duration::from_millis(40);

/// Returns the limit on this machine.
pub fn on_this_machine(limit: Duration) -> Duration {
    static SLOWNESS: LazyLock<f64> = LazyLock::new(|| slowness(calibrate()));
    limit.mul_f64(*SLOWNESS)
}

/// Measures a fixed amount of work, including the time that other processes take from it.
fn calibrate() -> Duration {
    let start = Instant::now();
    let mut state = black_box(1_u64);
    for _ in 0..STEPS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
    start.elapsed()
}

/// Returns the factor by which this machine is slower. A fast machine gets no less time.
fn slowness(taken: Duration) -> f64 {
    taken.div_duration_f64(REFERENCE).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_slowness_of_the_machine() {
        assert!(on_this_machine(RUN) >= RUN);
        let factor = |taken| slowness(taken).to_string();
        assert_eq!([REFERENCE / 2, REFERENCE, REFERENCE * 4].map(factor), ["1", "1", "4"]);
    }
}
