//! Costs that the micro-benchmark of kvm-unit-tests prints.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::costs::Costs;
use crate::output::Output;

/// Name of the program, which only measures operations and tests nothing.
pub(super) const NAME: &str = "micro-bench";
/// The operations that the program must have measured.
pub(super) const OPERATIONS: &[&str] =
    &["hyp_call", "mmio_read_user", "mmio_read_vgic", "eoi", "ipi", "lpi", "timer_10ms"];
/// The operation that does not exit to either hypervisor.
const WITHOUT_EXIT: &str = "eoi";
/// Instructions by which the costs of [`WITHOUT_EXIT`] may differ.
const TOLERANCE: u64 = 2;
/// Time limit of a run. A run waits for 256 timers of 10 ms and, under KVM, also boots Linux.
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

/// Checks that each operation is cheaper than on KVM, or costs the same if it does not exit.
pub(super) fn judge_beside(here: &Costs, kvm: &Costs) -> Result<()> {
    for operation in OPERATIONS {
        let (here, there) = (here.instructions_of(operation)?, kvm.instructions_of(operation)?);
        let most = if *operation == WITHOUT_EXIT { there + TOLERANCE } else { there };
        ensure!(here <= most, "{operation} costs {here}, and {there} on KVM");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::{judges, output};

    fn rows(dear: &str) -> Vec<String> {
        let cost = |name| if name == dear { 26 } else { 20 };
        OPERATIONS.iter().map(|name| format!("{name}  100.0  {}", cost(*name))).collect()
    }

    #[test]
    fn missing_or_too_slow_operations_fail() {
        let none: [&str; 0] = [];
        judges(&rows(""), &none, |output| costs(output, 2.0));
        let of = |dear| costs(&output(&rows(dear)), 2.0).unwrap();
        judge_beside(&of(""), &of("")).unwrap();
        for dear in OPERATIONS {
            assert!(judge_beside(&of(dear), &of("")).is_err(), "{dear}");
        }
    }
}
