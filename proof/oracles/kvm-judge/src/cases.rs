//! The cases.

mod attributes;
mod count;
mod fired;
mod moves;
mod routes;
mod tables;

use self::count::{Count, tell};
use doorbell_facts::CheckFact;

/// Plans that are tried, if the environment does not say `plans=…`: Linux hands its command line's
/// to its first process.
const PLANS: u64 = 6;

/// Runs all of them and prints their outcome.
pub(crate) fn run() {
    let mut count = Count::default();
    let wanted = std::env::var("plans").ok().and_then(|plans| plans.parse().ok());
    moves::run(wanted.unwrap_or(PLANS), &mut count);
    tables::run(&mut count);
    attributes::run(&mut count);
    routes::run(&mut count);
    let Count { passed, failed } = count;
    tell(CheckFact::Total { passed, failed, skipped: 0 });
}
