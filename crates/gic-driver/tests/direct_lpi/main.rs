//! Direct LPIs on redistributors that punish.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod board;
mod bulk;
mod demands;
mod endpoint;
mod hotplug;
mod memory;
mod model;
mod random;
mod redistributor;
mod resends;
