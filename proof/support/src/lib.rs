//! Tools shared by the tests of several packages.
//!
//! Every test program that uses this crate runs on this crate's [allocator](with_allocations). Each
//! module with dependencies has a separate feature, because `vm-memory` and `serde_json` add
//! integer comparisons that make `assert_eq!(numbers, [])` ambiguous in programs that link them.
#[cfg(feature = "damage")]
pub mod damage;
mod entry;
#[cfg(feature = "guest")]
pub mod guest;
mod guide;
mod heap;
#[cfg(feature = "kvm")]
pub mod kvm;
mod score;
pub mod suites;

pub use entry::{EntryField, check_entry};
pub use guide::{check_guide, check_guide_quotes};
pub use heap::{
    HeapUse, Outside, after_failures, failures_until, heap_in_use, heap_use, outside,
    until_it_succeeds, with_allocations,
};
pub use score::{Score, other_values};
