//! Comparison of the MSI-X table with the simplest possible model, and regression tests for defects
//! of other monitors.

mod capability;
mod guest_accesses;
mod model;
mod open_vectors;
mod rig;
mod threads;
