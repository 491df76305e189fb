//! Independent interpretations of ACPI tables.

pub mod disassembly;
pub mod linux;
pub mod tables;
pub mod walk;
