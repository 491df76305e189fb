//! The MSI-X table against a model as plain as possible, and against the faults of other monitors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../controller/mod.rs"]
mod controller;

mod guest_accesses;
mod model;
mod open_vectors;
mod rig;
mod threads;
