//! Costs of a machine: heap memory, accesses to guest memory, and kicks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
#[cfg(target_os = "linux")]
mod pause;
mod proportion;
mod steady_state;
