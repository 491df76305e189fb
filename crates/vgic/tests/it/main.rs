//! Tests of the model by its public interface. One program holds them, because each program that
//! uses the model compiles it again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod costs;
mod explain;
mod guest;
mod lists;
mod out_of_memory;
mod programs;
mod saved_state;
#[cfg(target_os = "linux")]
mod waiting;
