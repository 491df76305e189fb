//! The in-process machine.
