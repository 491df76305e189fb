//! Comparison of the MSI-X table with the simplest possible model, and regression tests for defects
//! of other monitors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../controller/mod.rs"]
mod controller;

mod capability;
mod guest_accesses;
mod model;
mod open_vectors;
mod rig;
mod threads;
