//! Compares messages with layouts that were typed by hand, and tests round trips.

mod message_layout;
mod refusals;
mod round_trip;
