//! The ITS driver against an ITS that keeps to the letter of the architecture and to nothing else.
#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

#[path = "its/board.rs"]
mod board;
#[path = "its/execution.rs"]
mod execution;
#[path = "its/interpreter.rs"]
mod interpreter;
#[path = "its/memory.rs"]
mod memory;
#[path = "its/redistributor.rs"]
mod redistributor;
#[path = "its/setup.rs"]
mod setup;

#[path = "its/collections.rs"]
mod collections;
#[path = "its/events.rs"]
mod events;
#[path = "its/parent.rs"]
mod parent;
#[path = "its/probing.rs"]
mod probing;
#[path = "its/queue.rs"]
mod queue;
#[path = "its/random.rs"]
mod random;
#[path = "its/sharing.rs"]
mod sharing;
#[path = "its/steps.rs"]
mod steps;
