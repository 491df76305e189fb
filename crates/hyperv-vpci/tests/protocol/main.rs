//! Messages against layouts that were typed by hand, and against each other.

mod message_layout;
mod refusals;
mod round_trip;
