//! Tests of the readers and writers by their public interface.

mod acpi;
mod hostile;
mod lint;
mod maps;
mod overlay;
mod round_trip;
mod shapes;
mod vocabulary;
mod wired;
