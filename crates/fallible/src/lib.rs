//! What Doorbell's `no_std` packages lack in `core`: fallible allocation and [locks](lock).
//!
//! Running out of memory is an error that the caller handles, not an abort. On stable Rust,
//! containers can only allocate fallibly through `try_reserve`. Based on `Vec::try_reserve`, the
//! crate provides collected vectors, boxes, shared ownership, tables, and a map whose
//! insertions use memory reserved in advance. For an [`Arc`](alloc::sync::Arc), the best we can do
//! is check in advance that the heap has enough memory. This part needs the feature `alloc`, which
//! is on by default, and can be removed once `Arc::try_new` and similar functions (the feature
//! `allocator_api`) are stable.
//!
//! # Example
//!
//! ```
//! use doorbell_fallible::{SortedMap, try_collect};
//!
//! let squares = try_collect((1..=3).map(|number| number * number))?;
//! assert_eq!(squares, [1, 4, 9]);
//!
//! let mut names = SortedMap::new();
//! names.reserve()?;
//! names.insert(33, "uart");
//! assert_eq!(names.get(33), Some(&"uart"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "alloc")]
mod heap;
#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(feature = "alloc")]
mod lazy_table;
pub mod lock;
#[cfg(feature = "alloc")]
mod shared;
#[cfg(feature = "alloc")]
mod sorted_map;
#[cfg(feature = "alloc")]
mod sync;

#[cfg(feature = "alloc")]
pub use heap::{
    OnceBox, OutOfMemory, try_arc, try_box, try_box_array, try_boxed_slice, try_collect,
    try_collect_exact, try_collect_results, try_page, try_page_table, try_push,
};
#[cfg(feature = "alloc")]
pub use lazy_table::LazyTable;
pub use msi_types;
#[cfg(feature = "alloc")]
pub use shared::{Block, Shared};
#[cfg(feature = "alloc")]
pub use sorted_map::SortedMap;
