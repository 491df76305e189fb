//! Independent interpretations of ACPI tables, for comparison with the command's output.

pub mod disassembly;
pub mod linux;
pub mod tables;
pub mod walk;
