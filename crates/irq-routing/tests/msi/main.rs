//! Comparison of the MSI capability with the simplest possible model.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../controller/mod.rs"]
mod controller;

mod guest_accesses;
mod model;
mod rig;
