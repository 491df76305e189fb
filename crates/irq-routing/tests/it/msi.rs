//! Comparison of the MSI capability with the simplest possible model.

mod guest_accesses;
mod model;
mod rig;
