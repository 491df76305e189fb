//! Driver tests on fake hardware that guarantees only what the architecture guarantees.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod cpu_interface;
mod direct_lpi;
mod distributor;
mod fake;
mod gicv2;
mod interleaving;
mod its;
mod lpis;
mod mbi;
mod mip;
mod platform;
mod redistributor;
mod v2m;
mod whole;
