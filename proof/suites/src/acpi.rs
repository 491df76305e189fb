//! Independent interpretations of ACPI tables, with which the command's output is compared.

pub mod disassembly;
pub mod linux;
pub mod tables;
pub mod walk;
