//! Tests for descriptions that are read from ACPI tables.

mod bytes;
mod convert;
mod draft;
mod faults;
mod hostile;
mod iort;
mod lint;
mod machine;
mod madt;
mod round_trip;
mod table_set;
