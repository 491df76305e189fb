//! Property tests and models.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod board;
mod managed;
mod matrix;
mod message;
mod out_of_memory;
mod parent;
mod races;
mod random;
mod remapping;
mod sdm;
