//! The drivers of LPIs against hardware that keeps to the letter of the architecture and to nothing
//! else.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod direct_lpi;
mod fake;
mod interleaving;
mod its;
