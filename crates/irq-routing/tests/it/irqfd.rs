//! Eventfds that signal GSIs, served by explicit calls and by a thread.
#![cfg(target_os = "linux")]

mod binding;
mod edges;
mod levels;
mod rig;
mod serving;
