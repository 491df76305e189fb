//! Eventfds that signal GSIs, served by explicit calls and by a thread.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../controller/mod.rs"]
mod controller;

mod binding;
mod edges;
mod levels;
mod rig;
mod serving;
