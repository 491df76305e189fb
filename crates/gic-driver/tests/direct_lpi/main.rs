//! Direct LPIs on redistributors that punish.

mod board;
mod demands;
mod endpoint;
mod hotplug;
mod memory;
mod model;
mod random;
mod redistributor;
