//! Single operations of the hot paths, each repeated a fixed number of times, for a program that
//! counts instructions. Only the operations themselves run in `counter::counted`; what prepares
//! them runs outside.

mod cases;
mod counter;

use crate::probe::{MeasureError, named};
use cases::CASES;
use counter::Counter;

/// Reports the repetitions of an operation. callgrind writes and resets its counts when this
/// function returns.
#[inline(never)]
fn finished(operation: &str, operations: u32, report: &mut dyn FnMut(&str, u32)) {
    report(operation, operations);
}

/// Performs all operations in turn. After each, calls `report` with its name and its number of
/// repetitions.
///
/// # Errors
/// Returns an error if an operation fails.
pub fn perform(report: &mut dyn FnMut(&str, u32)) -> Result<(), MeasureError> {
    for (name, case) in CASES {
        let mut counter = Counter::default();
        named(name, case(&mut counter))?;
        finished(name, counter.operations, report);
    }
    Ok(())
}
