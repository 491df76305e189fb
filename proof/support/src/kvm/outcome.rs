//! Results of trials.

use std::error::Error;
use std::fmt::Debug;
use std::panic::Location;

/// The failure of a trial.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The result of a trial.
pub type Outcome = Result<(), Failure>;

/// Compares two values, for trials that return their failures instead of panicking.
///
/// # Errors
/// The values differ.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the call has the form of assert_eq!")]
pub fn same<T: PartialEq + Debug>(found: T, expected: T) -> Outcome {
    let at = Location::caller();
    if found == expected {
        Ok(())
    } else {
        Err(format!("{at}: {found:?} instead of {expected:?}").into())
    }
}
