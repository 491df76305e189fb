//! A guest's memory and the kicks of its vCPUs, for the tests of device models.
//!
//! Apart from `doorbell-test-support`, because `vm-memory` gives integers more comparisons.
#![forbid(unsafe_code)]
mod kicks;
mod memory;

pub use kicks::Kicks;
pub use memory::{Ram, ram, take_dirty};
