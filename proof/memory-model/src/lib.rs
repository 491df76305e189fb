//! Checks compiled lock-free code against Arm's memory model.
//!
//! A core's module `memory_model`, which only exists with `--cfg memory_model`, exports the core's
//! functions as separate symbols. [`compile`] compiles them for AArch64. [`case`] translates the
//! assembly into litmus tests, which [`herd`] judges by Arm's own model, `aarch64.cat`.
#![forbid(unsafe_code)]

mod access;
mod alu;
pub mod assembly;
pub mod case;
pub mod catalog;
pub mod compile;
mod data;
mod heap;
pub mod herd;
pub mod litmus;
pub mod machine;
mod rewrite;
pub mod state;

/// Verdicts on the tests with one instruction's ordering weakened by one step. Each line has the
/// test, the target, the thread, the location, the instruction, the weaker instruction, and the
/// verdict on the forbidden outcome.
pub const VERDICTS: &str = include_str!("verdicts.txt");
