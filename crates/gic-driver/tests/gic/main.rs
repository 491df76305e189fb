//! The drivers of LPIs against hardware that keeps to the letter of the architecture and to nothing
//! else.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod cpu_interface;
mod direct_lpi;
mod distributor;
mod fake;
mod gicv2;
mod interleaving;
mod its;
mod lpis;
mod mbi;
mod platform;
mod redistributor;
mod v2m;
mod whole;
