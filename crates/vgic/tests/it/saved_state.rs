//! Tests for freezing, saving, restoring and thawing machines.

pub(crate) mod board;
mod corrupt;
mod direct_lpis;
mod format;
mod lists;
mod meanwhile;
mod pending_table;
mod refusals;
mod room;
mod round_trip;
mod shape;
