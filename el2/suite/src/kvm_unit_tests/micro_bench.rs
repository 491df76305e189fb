//! Costs that the micro-benchmark of kvm-unit-tests prints.

use std::time::Duration;

use anyhow::Result;

use crate::costs::Costs;
use crate::output::Output;

/// Name of the program, which only measures operations and tests nothing.
pub(super) const NAME: &str = "micro-bench";
/// The operations that the program must have measured.
pub(super) const OPERATIONS: &[&str] =
    &["hyp_call", "mmio_read_user", "mmio_read_vgic", "eoi", "ipi", "lpi", "timer_10ms"];
/// Time limit of a run, which waits for 256 timers of 10 ms.
pub(super) const LIMIT: Duration = Duration::from_mins(10);

/// Returns the mean costs that the program printed, if an instruction takes this many nanoseconds.
///
/// # Errors
///
/// Fails if an operation was not measured.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a printed mean")]
pub(super) fn costs(output: &Output, nanoseconds_per_instruction: f64) -> Result<Costs> {
    let row = |line: &String| {
        let [operation, _, average] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let cost = average.parse::<f64>().ok()? / nanoseconds_per_instruction;
        OPERATIONS.contains(&operation).then(|| (operation.to_owned(), cost.round() as u64))
    };
    let costs = Costs::counted(output.lines.iter().filter_map(row).collect());
    for operation in OPERATIONS {
        costs.instructions_of(operation)?;
    }
    Ok(costs)
}
