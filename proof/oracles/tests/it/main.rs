//! Tests that do not believe our crates: their numbers are typed by hand, or recorded.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod command_figures;
mod foreign_driver;
mod recordings;
mod registers;
mod routing;
mod tables;
