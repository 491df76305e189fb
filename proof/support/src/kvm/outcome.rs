//! Results of trials.

use std::error::Error;
use std::fmt::Debug;
use std::panic::Location;

/// Failure of a trial.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Result of a trial.
pub type Outcome = Result<(), Failure>;

/// Compares, for trials that return their failures.
///
/// # Errors
/// The values differ.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "as assert_eq! is written")]
pub fn same<T: PartialEq + Debug>(found: T, expected: T) -> Outcome {
    let at = Location::caller();
    if found == expected {
        Ok(())
    } else {
        Err(format!("{at}: {found:?} instead of {expected:?}").into())
    }
}
