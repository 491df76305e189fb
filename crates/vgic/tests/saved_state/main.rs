//! Tests for freezing, saving, restoring and thawing machines.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod board;
mod corrupt;
mod direct_lpis;
mod format;
mod lists;
mod meanwhile;
mod pending_table;
mod refusals;
mod room;
mod round_trip;
