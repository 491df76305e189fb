//! Guest memory and counted kicks, for testing device models.
mod kicks;
mod memory;

pub use kicks::Kicks;
pub use memory::{Ram, ram, take_dirty};
