//! Parts that several suites share. Each suite is a test target of this package, and a step of
//! `cargo xtask test`.
#![forbid(unsafe_code)]

pub mod fetched;
pub mod kvm;
pub mod qemu;
