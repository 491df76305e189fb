//! Tests for direct LPIs.

mod bulk;
mod endpoint;
mod explain;
mod hotplug;
mod masking;
mod messages;
mod model;
mod moves;
mod out_of_memory;
mod random;
mod refusals;
mod resends;
mod sharing;
