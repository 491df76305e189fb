//! Guest memory and counted kicks, for the tests of device models.
mod kicks;
mod memory;

pub use kicks::Kicks;
pub use memory::{Ram, ram, take_dirty};
