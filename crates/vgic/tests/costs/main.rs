//! Costs of a machine: bytes of heap, accesses to guest memory, kicks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
#[cfg(target_os = "linux")]
mod pause;
mod proportion;
mod steady_state;
