//! Tests of the ITS and the LPIs behind it.

extern crate std;

mod devices;
mod fairness;
mod faults;
mod invalidation;
mod measure;
mod queue;
mod redistributors;
mod reference;
mod reservation;
mod rig;
mod stress;
mod sweeps;
