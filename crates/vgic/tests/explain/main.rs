//! Guest faults, each planted through registers, commands or memory, and the obstacles with which
//! explanations must name the faults.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cpu_interface;
mod guest;
mod hostile;
mod inputs;
mod lpi_tables;
mod mutations;
mod page;
mod public_threads;
mod translation;
mod view;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../model/virtual_interface.rs"]
mod virtual_interface;
mod wired;
