//! Guest faults, each planted through registers, commands or memory, and the obstacles with which
//! explanations must name the faults.

mod cpu_interface;
mod guest;
mod hostile;
mod inputs;
mod lpi_tables;
mod mutations;
mod page;
mod public_threads;
mod translation;
mod wired;
