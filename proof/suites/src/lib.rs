//! The parts of suites that have tests of their own, or that several suites share. Each suite is a
//! test target in this package, and a step of `cargo xtask test`.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod alioth;
pub mod arceos;
pub mod boards;
pub mod differential;
pub mod fetched;
pub mod figures;
pub mod insertion;
pub mod instructions;
pub mod kvm;
pub mod live;
pub mod mutant;
pub mod names;
pub mod page;
pub mod qemu;
pub mod readme;
pub mod said;
pub mod size;
pub mod soak;
