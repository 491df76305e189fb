//! Tests for the view of saved states as KVM's device attributes and tables.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abi;
mod active;
mod attribute_rules;
mod board;
mod drops;
mod explain;
mod fields;
mod guest;
mod hostile;
mod left_out;
mod limits;
mod machines;
mod out_of_memory;
mod overlaps;
mod programs;
mod regions;
mod round_trip;
mod snapshot;
mod tables;
