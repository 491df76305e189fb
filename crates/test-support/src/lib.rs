//! What the tests of several packages need.
mod heap;

pub use heap::{Outside, with_allocations};
