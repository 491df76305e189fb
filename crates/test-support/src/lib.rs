//! Tools that the tests of several packages share.
mod entry;
mod heap;

pub use entry::{EntryField, check_entry};
pub use heap::{
    Outside, after_failures, failures_until, outside, until_it_succeeds, with_allocations,
};
