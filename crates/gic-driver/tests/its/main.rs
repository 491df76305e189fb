//! The ITS driver against an ITS that keeps to the letter of the architecture and to nothing else.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod board;
mod entries;
mod execution;
#[path = "../interleaving/mod.rs"]
mod interleaving;
mod interpreter;
mod memory;
mod redistributor;
mod setup;

mod adoption;
mod collections;
mod errata;
mod events;
mod model;
mod out_of_memory;
mod parent;
mod probing;
mod queue;
mod random;
mod resend;
mod sharing;
mod steps;
