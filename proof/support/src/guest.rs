//! Guest memory and counters of kicks, for tests of device models.
mod kicks;
mod memory;

pub use kicks::Kicks;
pub use memory::{Ram, ram, take_dirty};
