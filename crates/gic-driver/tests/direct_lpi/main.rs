//! Direct LPIs on redistributors that punish.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod board;
mod bulk;
mod endpoint;
mod hotplug;
#[path = "../interleaving/mod.rs"]
mod interleaving;
mod masking;
mod memory;
mod messages;
mod model;
mod moves;
mod out_of_memory;
mod random;
mod redistributor;
mod refusals;
mod resends;
mod sharing;
