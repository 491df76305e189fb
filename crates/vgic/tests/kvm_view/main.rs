//! Saved states seen as KVM's device attributes and tables.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod board;
mod creation;
#[path = "../saved_state/damage.rs"]
mod damage;
mod hostile;
mod limits;
mod registers;
mod round_trip;
mod tables;
