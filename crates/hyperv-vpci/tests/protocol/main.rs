//! Comparison of messages with layouts that were typed by hand, and round trips.

mod message_layout;
mod refusals;
mod round_trip;
