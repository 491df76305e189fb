//! Second opinions on ACPI tables.

pub mod disassembly;
pub mod linux;
pub mod tables;
pub mod walk;
