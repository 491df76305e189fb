//! Tests for the costs of a machine in heap memory, guest memory accesses and kicks.

mod machine;
#[cfg(target_os = "linux")]
mod pause;
mod proportion;
mod steady_state;
