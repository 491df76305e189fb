//! What the tests of several packages need.
mod heap;

pub use heap::{Outside, until_it_succeeds, with_allocations};
