//! The cases that the judge runs.

mod attributes;
mod count;
mod fired;
mod moves;
mod procedures;
mod restore;
mod routes;

use self::count::{Count, tell};
use doorbell_facts::CheckFact;

/// Number of plans to try unless the environment contains `plans=…`. (Linux turns such words on its
/// command line into environment variables of the first process.)
const PLANS: u64 = 2;

/// Runs all cases and prints their outcomes.
pub(crate) fn run() {
    let mut count = Count::default();
    let wanted = std::env::var("plans").ok().and_then(|plans| plans.parse().ok());
    let plans = wanted.unwrap_or(PLANS);
    moves::run(plans, &mut count);
    procedures::run(&mut count);
    restore::run(&mut count);
    attributes::run(&mut count);
    routes::run(&mut count);
    let Count { passed, failed } = count;
    tell(CheckFact::Total { passed, failed, skipped: 0 });
}
