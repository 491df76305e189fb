//! Saved states seen as KVM's device attributes and tables.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod board;
mod guest;
mod hostile;
mod left_out;
mod limits;
mod machines;
mod out_of_memory;
mod regions;
mod registers;
mod round_trip;
mod tables;
