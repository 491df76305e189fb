//! Messages against layouts that were typed by hand, and against each other.

mod layouts;
mod refusals;
mod round_trip;
