//! Tests for the ITS and the LPIs behind it.

extern crate std;

mod devices;
mod direct;
mod enabling;
mod fairness;
mod invalidation;
mod long_work;
mod queue;
mod ready_bits;
mod rig;
